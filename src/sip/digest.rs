//! stub
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm { Md5, Sha256 }

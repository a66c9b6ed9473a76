//! originate

//! The running server behind the control socket.

use serde_json::Value;

use super::{Answer, Control};
use crate::b2bua::{Ask, LiveCall, PhoneView, TrunkView};
use crate::call::record::RecordId;
use crate::io::Handle;
use crate::io::live::Away;
use crate::io::store::{Reader, StoreError};

impl Control for Handle {
    fn calls(&self) -> Vec<LiveCall> {
        self.live().calls()
    }

    fn call(&self, id: RecordId) -> Option<LiveCall> {
        self.live().call(id)
    }

    fn phones(&self) -> Vec<PhoneView> {
        self.live().phones()
    }

    fn away(&self) -> Vec<Away> {
        Handle::away(self)
    }

    fn trunks(&self) -> Vec<TrunkView> {
        self.live().trunks()
    }

    fn status(&self) -> Answer {
        let handle = self.clone();
        Box::pin(async move { Handle::status(&handle).await })
    }

    fn ask(&self, ask: Ask) -> Answer {
        let handle = self.clone();
        Box::pin(async move { Handle::ask(&handle, ask).await })
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        // A store that is slow now gives what it has.
        self.flush();
        Handle::reader(self)
    }

    fn reload(&self) -> Result<Vec<String>, String> {
        Handle::reload(self).map_err(|report| format!("{}{report}; the old configuration stays", report.render(false)))
    }

    fn import(&self) -> Result<Value, String> {
        Handle::import(self).map_err(|why| format!("{why}; what was imported before stays in force"))
    }

    fn put_sound(&self, name: &str, file: &[u8]) -> Result<(), String> {
        Handle::put_sound(self, name, file)
    }

    fn drain(&self) {
        Handle::drain(self);
    }
}

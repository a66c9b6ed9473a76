//! Phones that we opened: they answered by themselves, and are not to stay open if we are gone before their leg is. What is
//! needed to end them is kept from their 2xx until the end of the leg; after a crash the next run says the BYE.

use serde::{Deserialize, Serialize};

use super::super::Cx;
use super::{Leg, Peer, State};
use crate::dialog::Dialog;

/// A phone or loudspeaker that answered by itself, and its dialog as it stood when something of it was changed last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// The extension's number.
    pub extension: String,
    /// The dialog. Its Call-ID is ours, so no two have the same.
    pub dialog: Dialog,
}

impl Leg {
    /// Has its dialog kept, if it was opened by us and is not known as it is now.
    pub(super) fn remember(&mut self, cx: &mut Cx<'_>) {
        let (true, State::Up(up), Peer::Extension(number)) = (self.by_itself, &self.state, &self.peer) else { return };
        let same = |kept: &Opened| kept.dialog.flow == self.flow && kept.dialog.target == up.dialog.target;
        if self.opened.as_deref().is_some_and(same) {
            return;
        }
        let dialog = Dialog { flow: self.flow, ..up.dialog.clone() };
        let opened = Opened { extension: number.to_string(), dialog };
        if cx.switch.opened(&opened, self.opened.is_none()) {
            self.opened = Some(Box::new(opened));
        }
    }

    /// What is kept of it, for when it is over.
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.as_deref()
    }
}

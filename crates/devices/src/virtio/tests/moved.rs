//! A driver whose device becomes another one, by way of its state.

use std::sync::Arc;

use super::VirtioDevice;
use super::driver::Driver;
use super::mmio::Transport;
use crate::BoardDevice;

impl Driver {
    /// Goes on with `device`, which nobody has touched, where the present one is by its state, as a file would have it.
    pub(super) fn move_to(&mut self, device: Arc<dyn VirtioDevice>) {
        self.transport.pause();
        let text = self.transport.save().unwrap().to_string();
        let new = Transport::new(device, Arc::clone(&self.memory), self.line.clone());
        new.pause();
        new.restore(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(new.save().unwrap().to_string(), text, "nothing is lost");
        new.resume();
        self.transport = new;
    }
}

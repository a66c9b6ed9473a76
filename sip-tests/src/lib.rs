//! Simulated worlds for strowger.

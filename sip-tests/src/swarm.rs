//! A seed draws a world and minutes of its life.

//! Machine images: building, storing, cloning.

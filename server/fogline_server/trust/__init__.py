"""TUF: which artifacts a device may install, by whose signature, and until when. See docs/trust.md."""

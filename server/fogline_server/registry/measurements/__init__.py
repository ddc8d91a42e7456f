"""What real devices measure of a release's variants: who is asked, what they are offered, what they answered."""

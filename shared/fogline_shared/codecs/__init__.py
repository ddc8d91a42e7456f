"""Update codecs by name, one file each; ``base`` says how to add one."""

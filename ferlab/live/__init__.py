"""The live program: frames in, labelled faces out."""

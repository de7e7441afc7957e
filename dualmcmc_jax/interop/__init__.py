"""How are weights exchanged with other programs? PyTorch checkpoints and safetensors files."""

"""The native-resolution model: a small Qwen3-VL for pictures of any aspect ratio and videos."""

"""The engines, one a file: each declares what it can do, and registers itself (see `runtimes.engine`).

All flush denormals to zero, and run in float32 what is float32 (on CUDA, both onnxruntime and torch may still multiply
in TF32, as is their default).
"""

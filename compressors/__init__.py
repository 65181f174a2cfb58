"""The engine: a model in, a shallower model out. Knows nothing of gRPC, ONNX Runtime or TensorRT."""

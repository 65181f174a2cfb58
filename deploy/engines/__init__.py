"""TensorRT engines: built on the device that will run them, in a process of their own, and loaded only if ours."""

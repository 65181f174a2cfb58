"""The device agent: a small program on a user's device that fetches work from a server, does it, and hands it in.

It needs numpy, grpc, onnx and a runtime, and no torch. It calls the server and never the other way round, so it works
behind NAT.
"""

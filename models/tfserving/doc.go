// Package tfserving speaks TensorFlow Serving's gRPC protocol: it turns tensors into messages and back, and calls a
// server that may be TensorFlow's own or Ebb's model server.
//
// It knows nothing of pictures, labels, batches or events. What arrives is not trusted: a tensor whose elements do not
// fit its shape is an error, never a panic and never a large allocation for a small message.
package tfserving

//go:generate ../../hack/generate-proto.sh

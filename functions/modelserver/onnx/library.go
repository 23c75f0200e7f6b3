// Package onnx runs networks that are ONNX files, on the CPU, with ONNX Runtime. It reads what a network takes and
// answers from the file; any file will do whose inputs have a first dimension to batch along, or that takes one item.
//
// It knows nothing of folders of models, of gRPC or of HTTP.
package onnx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	ort "github.com/yalue/onnxruntime_go"
)

// LibraryName is the file that is looked for when no library is named.
const LibraryName = "libonnxruntime.so"

// FindLibrary returns the ONNX Runtime library to use when none is named: the one beside the running program, or the one
// in .ebb/lib of the working directory or of one above it, up to that of the go.mod.
func FindLibrary() (string, error) {
	if program, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(program), LibraryName); isFile(path) {
			return path, nil
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("look for ONNX Runtime: %w", err)
	}
	for {
		if path := filepath.Join(dir, ".ebb", "lib", LibraryName); isFile(path) {
			return path, nil
		}
		above := filepath.Dir(dir)
		if above == dir || isFile(filepath.Join(dir, "go.mod")) {
			return "", fmt.Errorf("ONNX Runtime's library was not found, neither beside the program nor as .ebb/lib/%s: run `make model`, or set ONNXRUNTIME_LIB to its path", LibraryName)
		}
		dir = above
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

var started sync.Mutex

// start loads the library into the process, once and for good: it cannot be unloaded safely while C++ threads and
// destructors of its own may still run.
func start(library string) error {
	started.Lock()
	defer started.Unlock()
	if ort.IsInitialized() {
		return nil
	}
	if !isFile(library) {
		return fmt.Errorf("ONNX Runtime's library %q is not a file", library)
	}
	ort.SetSharedLibraryPath(library)
	// What goes wrong in a call is returned to the caller; the library would also write it to stderr in a form of its own.
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return fmt.Errorf("start ONNX Runtime from %q: %w", library, err)
	}
	if err := ort.DisableTelemetry(); err != nil {
		return errors.Join(fmt.Errorf("switch off ONNX Runtime's telemetry: %w", err), ort.DestroyEnvironment())
	}
	return nil
}

// Version returns the version of ONNX Runtime that is in use, once a Loader has been made.
func Version() string { return ort.GetVersion() }

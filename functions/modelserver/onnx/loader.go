package onnx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	ort "github.com/yalue/onnxruntime_go"
	"golang.org/x/sys/cpu"
)

// Defaults of Options.
const (
	DefaultSessions = 2
	DefaultThreads  = 1
	DefaultMaxBatch = 64
)

// Options say how networks are run.
type Options struct {
	// Library is the path of ONNX Runtime's shared library; FindLibrary looks for it when empty. The first Loader of a
	// process decides.
	Library string
	// Sessions is how many calls one network computes at the same time; more of them wait. Default DefaultSessions.
	Sessions int
	// Threads is how many threads one call uses. More than one shortens a lone call and costs throughput, as threads wait
	// for each other. Default DefaultThreads.
	Threads int
	// MaxBatch is the most items in one call. Memory grows with it. Default DefaultMaxBatch.
	MaxBatch int
}

// Loader loads networks. It is a store.Loader.
type Loader struct{ options Options }

// NewLoader starts ONNX Runtime in this process, unless it runs already.
func NewLoader(o Options) (*Loader, error) {
	if o.Sessions < 0 || o.Threads < 0 || o.MaxBatch < 0 {
		return nil, fmt.Errorf("ONNX options must not be negative: %d sessions, %d threads, batches of %d", o.Sessions, o.Threads, o.MaxBatch)
	}
	o.Sessions = or(o.Sessions, DefaultSessions)
	o.Threads = or(o.Threads, DefaultThreads)
	o.MaxBatch = or(o.MaxBatch, DefaultMaxBatch)
	if o.Library == "" {
		found, err := FindLibrary()
		if err != nil {
			return nil, err
		}
		o.Library = found
	}
	if err := start(o.Library); err != nil {
		return nil, err
	}
	return &Loader{o}, nil
}

func or(value, otherwise int) int {
	if value == 0 {
		return otherwise
	}
	return value
}

// Load reads the network in a folder: model.onnx, or the only file whose name ends so. Weights may be in files beside
// it, as ONNX allows.
func (l *Loader) Load(ctx context.Context, dir string) (*Network, error) {
	path, err := find(dir)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// What the file says of its inputs and outputs is needed to make the session. It is read by a session that is not made
	// ready to run, which takes a tenth of the time.
	plain, err := l.session()
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		plain.SetGraphOptimizationLevel(ort.GraphOptimizationLevelDisableAll),
		plain.AddSessionConfigEntry("session.disable_prepacking", "1"),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("session options: %w", err), plain.Destroy())
	}
	inputs, outputs, err := ort.GetInputOutputInfoWithOptions(path, plain)
	if err = errors.Join(err, plain.Destroy()); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	n, err := describe(inputs, outputs, l.options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	full, err := l.session()
	if err != nil {
		return nil, err
	}
	n.session, err = ort.NewDynamicAdvancedSession(path, n.inputs, n.outputs, full)
	if err = errors.Join(err, full.Destroy()); err != nil {
		if n.session != nil {
			err = errors.Join(err, n.session.Destroy())
		}
		return nil, fmt.Errorf("make a session of %s: %w", filepath.Base(path), err)
	}
	return n, nil
}

// session returns the options of a session. The caller destroys them.
func (l *Loader) session() (*ort.SessionOptions, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("session options: %w", err)
	}
	err = errors.Join(
		o.SetExecutionMode(ort.ExecutionModeSequential),
		o.SetIntraOpNumThreads(l.options.Threads),
		o.SetInterOpNumThreads(1),
		// Threads that wait must not spin: the machine has other things to do.
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		o.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
		o.AddSessionConfigEntry("session.x64quantprecision", precise(cpu.X86.HasAVX512VNNI || cpu.X86.HasAVXVNNI)),
		// Weights are allocated in their exact size, not by an arena that rounds up.
		o.AddSessionConfigEntry("session.use_device_allocator_for_initializers", "1"),
		// A plan of the memory is kept for each shape of the inputs that was ever seen; callers could make it grow.
		o.SetMemPattern(false),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("session options: %w", err), o.Destroy())
	}
	return o, nil
}

// precise says which instructions multiply bytes on x86. Without VNNI the quick ones add products in 16 bits, which can
// overflow, quietly: a quantised network would answer differently there. With VNNI the quick ones are exact, and twice as
// quick as the others. Other processors do not look at it.
func precise(vnni bool) string {
	if vnni {
		return "0"
	}
	return "1"
}

// find returns the path of the network's file.
func find(dir string) (string, error) {
	const suffix = ".onnx"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("read the version's folder: %w", err)
	}
	var found []string
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "model"+suffix:
			return filepath.Join(dir, name), nil
		case strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, "."):
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return "", errors.New("there is no .onnx file in the version's folder")
	case 1:
		return filepath.Join(dir, found[0]), nil
	default:
		return "", fmt.Errorf("there are %d .onnx files in the version's folder and none is model.onnx", len(found))
	}
}

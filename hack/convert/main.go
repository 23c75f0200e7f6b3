// Convert turns a quantised TensorFlow Lite network that classifies pictures into an ONNX one.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/ebb-inference/ebb/hack/convert/translate"
)

const usage = `Usage: convert INPUT.tflite OUTPUT.onnx

Turns a quantised (uint8) TensorFlow Lite network that classifies pictures into an
ONNX one with input "input", uint8 [N, height, width, channels], and output "logits",
float32 [N, classes]. ONNX Runtime runs it; the com.microsoft operators in it are
ONNX Runtime's own. The same input always gives the same bytes.
`

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "convert:", err)
		os.Exit(1)
	}
}

func run(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("convert", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case flags.NArg() != 2:
		return errors.New("want two arguments, INPUT.tflite and OUTPUT.onnx; -h explains")
	}
	source, err := os.ReadFile(flags.Arg(0))
	if err != nil {
		return err
	}
	network, err := translate.Convert(source)
	if err != nil {
		return fmt.Errorf("%s: %w", flags.Arg(0), err)
	}
	return os.WriteFile(flags.Arg(1), network, 0o644)
}

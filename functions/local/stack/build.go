package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// packages are the programs that Build compiles.
var packages = []string{"./functions/modelserver", "./functions/ingress", "./functions/dispatch", "./functions/deadletter"}

// Build compiles Ebb's programs into a folder. What is up to date is left alone.
func Build(ctx context.Context, root, folder string) error {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	//nolint:gosec // a folder of the operator's
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", folder + string(filepath.Separator)}, packages...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling Ebb's programs: %w: %s", err, out)
	}
	return nil
}

// findRoot finds the project's folder from the working directory upwards.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", errors.New("the working directory is in no folder with a go.mod")
		}
		dir = above
	}
}

package command

import (
	"errors"
	"os"
	"path/filepath"
)

// Root is the project's folder: the working directory, or the first above it with a ko.yaml.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "ko.yaml")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("this has to run in the project's folder, where ko.yaml is")
		}
		dir = parent
	}
}

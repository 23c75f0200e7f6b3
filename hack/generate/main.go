// Command generate writes what follows from the definitions of the models in config/models: below each definition the dispatch
// Service and the Trigger of the model, the model servers, and what ingress and deadletter know of the models.
//
// A definition is a ConfigMap; the rest of the files, and what is not between the marks of a generated part, is left as it is.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	config := flag.String("config", "config", "folder of manifests")
	flag.Parse()
	if err := write(*config); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// write writes the files that are not as they should be, and says which.
func write(config string) error {
	files, err := manifests(config)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(config, name)
		if now, err := os.ReadFile(path); err == nil && string(now) == files[name] {
			continue
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", path)
	}
	return nil
}

package models

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// ReadFile reads the definition at a path, as Parse does, with the files beside it.
func ReadFile(file string) (*Model, error) {
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("definition of a model: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read
	m, err := Parse(root.FS(), filepath.Base(file))
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", filepath.Dir(file), err)
	}
	return m, nil
}

// ReadFolders reads the models of folders, each in the order of its files' names: every .yaml file as ReadManifest does,
// but a definition as Parse does where it is called ManifestKey, in the folder or in one within. That is how a volume shows
// a ConfigMap, and a folder of such volumes several.
//
// A model of a later folder replaces the one with its name, so that a folder can hold nothing but what differs.
func ReadFolders(folders ...string) ([]*Model, error) {
	var all []*Model
	for _, folder := range folders {
		found, err := readFolder(folder)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			if i := slices.IndexFunc(all, func(other *Model) bool { return other.Name == m.Name }); i >= 0 {
				all[i] = m
				continue
			}
			all = append(all, m)
		}
	}
	return all, nil
}

func readFolder(folder string) ([]*Model, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("folder of models: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read
	files, err := fs.Glob(root.FS(), "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	// A volume has its files a second time, in folders whose names begin with a dot.
	within, err := fs.Glob(root.FS(), "[^.]*/"+ManifestKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", folder, err)
	}
	var all []*Model
	for _, file := range slices.Sorted(slices.Values(append(files, within...))) {
		found, err := readModels(root.FS(), file)
		if err != nil {
			return nil, fmt.Errorf("in %s: %w", folder, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func readModels(fsys fs.FS, file string) ([]*Model, error) {
	if path.Base(file) != ManifestKey {
		return ReadManifest(fsys, file)
	}
	m, err := Parse(fsys, file)
	if err != nil {
		return nil, err
	}
	return []*Model{m}, nil
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// curl writes the address itself in place of what is there.
func curl(c call) (string, bool, error) {
	if len(c.words) != 1 || !strings.HasPrefix(c.words[0], "https://") || c.flags["proto"] != "=https" || c.flags["fail"] == "" {
		return "", false, fmt.Errorf("not a download over HTTPS that may fail: %q", c.words)
	}
	return "", true, os.WriteFile(c.flags["output"], []byte(c.words[0]+os.Getenv("STANDIN_TAMPER")), 0o600)
}

// tar lays down a SavedModel.
func tar(c call) (string, bool, error) {
	if _, err := os.Stat(c.flags["file"]); err != nil {
		return "", false, err
	}
	to := c.flags["directory"]
	return "", true, errors.Join(os.MkdirAll(filepath.Join(to, "variables"), 0o755),
		os.WriteFile(filepath.Join(to, "saved_model.pb"), nil, 0o600), os.WriteFile(filepath.Join(to, "variables", "variables.index"), nil, 0o600),
		c.only("extract", "gzip", "no-same-owner", "strip-components", "directory", "file"))
}

func golang(c call) (string, bool, error) {
	if len(c.words) < 2 || !slices.Equal(c.words[:2], []string{"run", "./hack/secret"}) {
		return "", false, fmt.Errorf("go has nothing else to do here: %q", c.words)
	}
	return `{"kind": "Secret"}`, false, nil
}

func kind(c call) (string, bool, error) {
	name := c.flags["name"]
	switch strings.Join(c.words, " ") {
	case "get clusters":
		return lines(c.Things, "kind/", ""), false, c.only()
	case "create cluster":
		if c.Things["kind/"+name] != nil {
			return "", false, errors.New("node(s) already exist for a cluster with this name")
		}
		if _, err := os.Stat(c.flags["config"]); err != nil {
			return "", false, err
		}
		c.Things["kind/"+name], c.Things["docker network/kind"] = map[string]any{}, map[string]any{}
		return "", true, errors.Join(os.WriteFile(c.flags["kubeconfig"], []byte(name), 0o600), c.only("name", "image", "config", "kubeconfig", "wait"))
	case "export kubeconfig":
		if c.Things["kind/"+name] == nil {
			return "", false, errors.New("could not locate any control plane nodes")
		}
		return "", false, errors.Join(os.WriteFile(c.flags["kubeconfig"], []byte(name), 0o600), c.only("name", "kubeconfig"))
	case "delete cluster":
		delete(c.Things, "kind/"+name)
		clear(c.Kube)
		clear(c.Applied)
		return "", true, c.only("name", "kubeconfig")
	}
	return "", false, fmt.Errorf("unknown command %q", c.words)
}

func docker(c call) (string, bool, error) {
	key := "docker/" + c.flags["name"]
	switch words := c.words; {
	case words[0] == "ps":
		return lines(c.Things, "docker/", ""), false, c.only("all", "filter", "format")
	case words[0] == "run":
		if c.Things[key] != nil {
			return "", false, errors.New("conflict: the container name is already in use")
		}
		c.Things[key] = map[string]any{}
		return "", true, c.only("detach", "restart", "publish", "name", "label")
	case words[0] == "network" && words[1] == "connect":
		container := c.Things["docker/"+words[3]]
		if c.Things["docker network/"+words[2]] == nil || container == nil || container["network"] != nil {
			return "", false, errors.New("no such network or container, or endpoint exists already")
		}
		container["network"] = words[2]
		return "", true, c.only()
	case words[0] == "inspect":
		if name := words[1]; strings.HasSuffix(name, "-control-plane") {
			return "172.18.0.2\n", false, c.only("format")
		}
		container := c.Things["docker/"+words[1]]
		if container == nil {
			return "", false, errors.New("no such object")
		}
		networks := "bridge"
		if container["network"] != nil {
			networks += " kind"
		}
		return networks + "\n", false, c.only("format")
	case words[0] == "rm":
		if c.Things["docker/"+words[1]] == nil {
			return "", false, errors.New("no such container")
		}
		delete(c.Things, "docker/"+words[1])
		return "", true, c.only("force", "volumes")
	}
	return "", false, fmt.Errorf("unknown command %q", c.words)
}

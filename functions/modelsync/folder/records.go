package folder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// Records keep a network's State in a file beside the networks, for one process.
type Records struct {
	file string

	mu sync.Mutex
}

var _ rollout.Records = (*Records)(nil)

// NewRecords makes the Records of a network in a model server's base folder.
func NewRecords(base, network string) *Records {
	return &Records{file: filepath.Join(base, records, network+".json")}
}

// Load reads the file.
func (r *Records) Load(context.Context) (s rollout.State, revision string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, revision, err := r.read()
	if err != nil || revision == "" {
		return s, "", err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, "", fmt.Errorf("%s: %w; remove it to begin anew", r.file, err)
	}
	return s, revision, nil
}

// read returns the file's text and what tells it from another; both are empty when there is none.
func (r *Records) read() (text []byte, revision string, err error) {
	text, err = os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(text)
	return text, hex.EncodeToString(sum[:]), nil
}

// Save writes another file and puts it in place of the first, so that there is a whole one at any time.
func (r *Records) Save(_ context.Context, s rollout.State, revision string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, is, err := r.read()
	switch {
	case err != nil:
		return "", err
	case is != revision:
		return "", rollout.ErrConflict
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(r.file), 0o750); err != nil {
		return "", err
	}
	if err := write(r.file+".new", text); err != nil {
		return "", err
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

func write(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the name is made of a network's, which New checks
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// Package source finds the versions of a network where its makers publish them, and brings one of them here.
//
// A network is published in TensorFlow Serving's layout: a folder a version, whose name is a positive number; the larger is
// the newer. Where that is, a URL says; what its scheme means, an Opener knows, each in a package of its own, so that a
// program compiles in only those that it wants.
//
// # Publishing
//
// A version is immutable, and it must not be taken before all of it is there. How a source knows that is for its publisher to
// choose:
//
//   - Where folders can be renamed, the version is written under a name that is not a number, such as .2 or 2.tmp, and
//     renamed.
//   - Elsewhere the file SHA256SUMS, as sha256sum writes it, is put into the version's folder before the other files. While
//     one that it lists is missing, the version is not complete; when all are there, they have to be what it says.
//   - With neither, a source guesses: a version is complete when nothing in it has changed for a while.
//
// SHA256SUMS is about a version and no part of it: it is not brought, and has no share in the digest.
//
// The package knows nothing of what a network is made of, nor of where it will be served.
package source

import (
	"context"
	"errors"
	"net/url"
)

// Errors of a Source, for callers that decide by them. All others are worth another try.
var (
	// ErrScheme says that no Opener knows the URL's scheme.
	ErrScheme = errors.New("unknown kind of model source")
	// ErrURL says that a URL cannot be a source's. The error does not repeat the URL: what is wrong with it may be a password.
	ErrURL = errors.New("invalid URL of a model source")
	// ErrGone says that the version is not published, or not any more.
	ErrGone = errors.New("no such version")
	// ErrIncomplete says that the version is not published completely; it may be later.
	ErrIncomplete = errors.New("version is not complete")
	// ErrCorrupt says that the version's files are not what its checksums say, or have names that no version's files have.
	ErrCorrupt = errors.New("version is corrupt")
	// ErrLimit says that the version, or the list of versions, is larger than the Limits allow.
	ErrLimit = errors.New("over the limit")
)

// Source is one network's place of publication. It may be used by one goroutine at a time.
type Source interface {
	// Versions lists what is published, ascending. What is recognisably not complete is not listed; what is not a version
	// is skipped.
	Versions(ctx context.Context) ([]int64, error)
	// Fetch brings the files of a version into dir, and checks them by the checksums that the source has. The folder is empty,
	// or holds what an earlier Fetch of the same version left when it failed or its process was killed: what of it the
	// source's checksums still confirm is not brought again. After an error dir is of use for nothing else.
	Fetch(ctx context.Context, version int64, dir string) (Fetched, error)
	// Close frees what the source holds.
	Close() error
}

// Fetched is what Fetch brought.
type Fetched struct {
	Files    int
	Bytes    int64
	Digest   string // "sha256:…" over the names and contents of all files; the same files have the same digest, whatever the source
	Verified bool   // the source had checksums for every file, and they were right
}

// Limits bound what a source may make of us. The zero value of a field is its default.
type Limits struct {
	Versions int   // listed versions, default 1000
	Files    int   // of one version, default 10000
	Bytes    int64 // of one version, default 8 GiB
}

// WithDefaults returns the limits with the zero fields filled in.
func (l Limits) WithDefaults() Limits {
	if l.Versions <= 0 {
		l.Versions = 1000
	}
	if l.Files <= 0 {
		l.Files = 10_000
	}
	if l.Bytes <= 0 {
		l.Bytes = 8 << 30
	}
	return l
}

// Opener makes the Source of a URL whose scheme it knows and that ParseURL has let pass. It may look at the URL only; the
// network is asked later. Its errors do not repeat the URL.
type Opener func(ctx context.Context, at *url.URL, limits Limits) (Source, error)

// Openers are the Openers by scheme.
type Openers map[string]Opener

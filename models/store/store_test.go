package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-inference/ebb/models/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is a version whose answer is what its file says.
type text struct {
	dir    string
	answer string
	fx     *fixture
	closed atomic.Bool
}

func (t *text) Warm(context.Context) error {
	t.fx.log("warm %s", t.answer)
	if t.answer == "cold" {
		return errors.New("cannot be warmed")
	}
	return nil
}

func (t *text) Close() error {
	if t.closed.Swap(true) {
		return errors.New("closed twice")
	}
	t.fx.log("close %s", t.answer)
	return nil
}

// fixture is a folder of models and a store over it. Files are real; time is the bubble's. Files are newer than the
// bubble's clock, so that only two looks can settle them.
type fixture struct {
	t      *testing.T
	base   string
	config store.Config[*text]
	*store.Store[*text]

	mu     sync.Mutex
	logs   []string
	onLoad func(dir string) // called within Load
}

func setup(t *testing.T) *fixture {
	t.Helper()
	fx := &fixture{t: t, base: t.TempDir()}
	fx.config = store.Config[*text]{
		Base:     fx.base,
		Interval: time.Second,
		Retry:    time.Minute,
		Logger:   slog.New(slog.DiscardHandler),
		Observe: func(e store.Event) {
			fx.log("%s/%d %s", e.Model, e.Version, e.State)
		},
		Loader: store.LoaderFunc[*text](func(_ context.Context, dir string) (*text, error) {
			fx.loading(dir)
			content, err := os.ReadFile(filepath.Join(dir, "model"))
			if err != nil {
				return nil, err
			}
			if answer := string(content); !strings.HasPrefix(answer, "bad") {
				return &text{dir: dir, answer: answer, fx: fx}, nil
			}
			return nil, fmt.Errorf("%s file", content)
		}),
	}
	return fx
}

// during has f called within each load from now on.
func (fx *fixture) during(f func(dir string)) {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	fx.onLoad = f
}

func (fx *fixture) loading(dir string) {
	fx.mu.Lock()
	f := fx.onLoad
	fx.mu.Unlock()
	if f != nil {
		f(dir)
	}
}

func (fx *fixture) log(format string, args ...any) {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	fx.logs = append(fx.logs, fmt.Sprintf(format, args...))
}

// happened returns what was logged since the last call.
func (fx *fixture) happened() []string {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	logs := fx.logs
	fx.logs = nil
	return logs
}

func (fx *fixture) write(path, content string) {
	fx.t.Helper()
	path = filepath.Join(fx.base, path)
	require.NoError(fx.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(fx.t, os.WriteFile(path, []byte(content), 0o600))
}

func (fx *fixture) rename(from, to string) {
	fx.t.Helper()
	require.NoError(fx.t, os.Rename(filepath.Join(fx.base, from), filepath.Join(fx.base, to)))
}

func (fx *fixture) remove(path string) {
	fx.t.Helper()
	require.NoError(fx.t, os.RemoveAll(filepath.Join(fx.base, path)))
}

func (fx *fixture) open() {
	fx.t.Helper()
	s, err := store.Open(fx.config)
	require.NoError(fx.t, err)
	fx.Store = s
	fx.t.Cleanup(func() { require.NoError(fx.t, s.Close(context.WithoutCancel(fx.t.Context()))) })
	synctest.Wait()
}

// looks lets the store look n times, and finish what it then does.
func (fx *fixture) looks(n int) {
	for range n {
		time.Sleep(fx.config.Interval)
		synctest.Wait()
	}
}

// ask is one call: it returns the answer and the version that gave it.
func (fx *fixture) ask(ref store.Ref) (string, int64) {
	fx.t.Helper()
	h, err := fx.Acquire(ref)
	require.NoError(fx.t, err)
	defer h.Release()
	return h.Servable.answer, h.Version
}

func (fx *fixture) requireAnswer(model, answer string) {
	fx.t.Helper()
	got, _ := fx.ask(store.Ref{Model: model})
	require.Equal(fx.t, answer, got)
}

func (fx *fixture) states(model string) string {
	fx.t.Helper()
	all, err := fx.Status(model)
	require.NoError(fx.t, err)
	var b strings.Builder
	for i, s := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", s.Version, s.State)
		if s.Err != nil {
			fmt.Fprintf(&b, " (%s)", s.Err)
		}
	}
	return b.String()
}

// bubble runs a test in a bubble of its own time.
func bubble(t *testing.T, f func(fx *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		f(setup(t))
	})
}

func TestTheLatestVersionOfEachModelIsLoadedAndWarmed(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "cat one")
		fx.write("cat/2/model", "cat two")
		fx.write("cat/10/model", "cat ten")
		fx.write("dog/007/model", "dog seven")
		fx.open()
		require.ErrorContains(t, fx.Ready(), `model "cat" is still being loaded`)
		fx.looks(1)
		require.NoError(t, fx.Ready())
		require.Equal(t, []string{"cat", "dog"}, fx.Models())

		answer, version := fx.ask(store.Ref{Model: "cat"})
		require.Equal(t, "cat ten", answer)
		require.EqualValues(t, 10, version)
		answer, version = fx.ask(store.Ref{Model: "dog", Version: 7})
		require.Equal(t, "dog seven", answer)
		require.EqualValues(t, 7, version)
		require.Equal(t, "10 AVAILABLE", fx.states("cat"))

		for _, c := range []struct {
			ref  store.Ref
			want error
		}{
			{store.Ref{Model: "cow"}, store.ErrModel},
			{store.Ref{Model: "cat", Version: 2}, store.ErrVersion},
			{store.Ref{Model: "cat", Version: 11}, store.ErrVersion},
			{store.Ref{Model: "cat", Label: "stable"}, store.ErrLabel},
		} {
			_, err := fx.Acquire(c.ref)
			require.ErrorIs(t, err, c.want)
		}
		_, err := fx.Status("cow")
		require.ErrorIs(t, err, store.ErrModel)
	})
}

func TestOnlyFoldersWithNumbersAreVersions(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		for _, name := range []string{".2", "3.tmp", "0", "-4", "+5", "6~", "new", "99999999999999999999", "0x8"} {
			fx.write(filepath.Join("cat", name, "model"), "not a version")
		}
		fx.write("cat/9", "a file")
		fx.write(".hidden/1/model", "not a model")
		fx.write("a file", "not a model")
		fx.write("cat/1/model", "one")
		require.NoError(t, os.Symlink(filepath.Join(fx.base, "cat/1"), filepath.Join(fx.base, "cat/8")))
		fx.open()
		fx.looks(1)
		require.Equal(t, []string{"cat"}, fx.Models())
		require.Equal(t, "8 AVAILABLE", fx.states("cat"), "a link to a folder is a version")
		fx.remove("cat/8")
		fx.looks(2)
		require.Equal(t, "1 AVAILABLE", fx.states("cat"))
	})
}

func TestANewVersionIsWarmBeforeTheOldOneIsDropped(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.open()
		fx.looks(1)
		fx.requireAnswer("cat", "one")
		fx.happened()

		fx.write("cat/.2/model", "two")
		fx.looks(3)
		require.Empty(t, fx.happened(), "what is being copied is left alone")
		fx.rename("cat/.2", "cat/2")
		fx.looks(2)
		fx.requireAnswer("cat", "two")
		require.Equal(t, []string{
			"cat/2 START", "cat/2 LOADING", "warm two", "cat/2 AVAILABLE", "cat/1 UNLOADING", "close one", "cat/1 END",
		}, fx.happened())
		require.Equal(t, "2 AVAILABLE, 1 END", fx.states("cat"))
		fx.looks(5)
		require.Empty(t, fx.happened(), "nothing happens while nothing changes")
	})
}

func TestOldFilesThatAreRenamedIntoPlaceAreTakenAtTheFirstLook(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/.1/model", "one")
		old := time.Now().Add(-2 * fx.config.Interval)
		for _, path := range []string{"cat/.1/model", "cat/.1"} {
			require.NoError(t, os.Chtimes(filepath.Join(fx.base, path), old, old))
		}
		fx.open()
		fx.rename("cat/.1", "cat/1")
		fx.looks(1)
		fx.requireAnswer("cat", "one")
	})
}

func TestAFolderThatLooksUnchangedIsListedAtEveryTenthLook(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		old := time.Now().Add(-time.Hour)
		age := func() {
			for _, path := range []string{"", "cat"} {
				require.NoError(t, os.Chtimes(filepath.Join(fx.base, path), old, old))
			}
		}
		fx.write("cat/1/model", "one")
		age()
		fx.open() // the first look
		fx.looks(3)
		fx.requireAnswer("cat", "one")
		fx.write("cat/2/model", "two")
		fx.write("dog/1/model", "dog")
		age()
		fx.looks(6)
		fx.requireAnswer("cat", "one")
		require.Equal(t, []string{"cat"}, fx.Models())
		fx.looks(2) // the eleventh, and one for the files to be seen unchanged
		fx.requireAnswer("cat", "two")
		fx.requireAnswer("dog", "dog")
	})
}

func TestAVersionWhoseFilesStillChangeIsNotLoaded(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.open()
		fx.looks(1)
		for i := range 5 {
			fx.write("cat/2/model", strings.Repeat("x", i+1))
			fx.looks(1)
			require.Equal(t, "2 START, 1 AVAILABLE", fx.states("cat"))
			_, err := fx.Acquire(store.Ref{Model: "cat", Version: 2})
			require.ErrorIs(t, err, store.ErrNotLoaded)
		}
		fx.write("cat/2/weights/part", "another file")
		fx.looks(1)
		fx.requireAnswer("cat", "one")
		fx.looks(1)
		fx.requireAnswer("cat", "xxxxx")
	})
}

func TestAVersionThatChangesWhileItIsLoadedIsNotUsed(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.open()
		fx.looks(1)
		fx.during(func(dir string) {
			if strings.HasSuffix(dir, "2") {
				fx.write("cat/2/more", "just arrived")
			}
		})
		fx.write("cat/2/model", "half")
		fx.looks(2)
		fx.requireAnswer("cat", "one")
		require.Equal(t, "2 END (its files changed while it was being loaded), 1 AVAILABLE", fx.states("cat"))
		require.Contains(t, fx.happened(), "close half")
		fx.during(nil)
		fx.looks(2)
		fx.requireAnswer("cat", "half")
	})
}

func TestAVersionThatFailsKeepsTheOldOneAndSaysWhy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, content, why string }{
		{"to load", "bad", "load: bad file"},
		{"to be warmed", "cold", "warm: cannot be warmed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(fx *fixture) {
				t := fx.t
				fx.write("cat/1/model", "one")
				fx.open()
				fx.looks(1)
				fx.write("cat/2/model", c.content)
				fx.looks(2)
				fx.requireAnswer("cat", "one")
				require.Equal(t, "2 END ("+c.why+"), 1 AVAILABLE", fx.states("cat"))
				require.NoError(t, fx.Ready())
				_, err := fx.Acquire(store.Ref{Model: "cat", Version: 2})
				require.ErrorIs(t, err, store.ErrNotLoaded)
				require.ErrorContains(t, err, c.why)

				fx.happened()
				fx.looks(10)
				require.Empty(t, fx.happened(), "it is not tried again while nothing changes")

				fx.write("cat/2/model", "two, repaired")
				fx.looks(2)
				fx.requireAnswer("cat", "two, repaired")
			})
		})
	}
}

func TestAFailedVersionIsTriedAgainLessAndLessOften(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		var attempts []time.Duration
		begin := time.Now()
		fx.during(func(string) { attempts = append(attempts, time.Since(begin)) })
		fx.write("cat/1/model", "bad")
		fx.config.Interval = 10 * time.Second
		fx.open()
		fx.looks(90 * 6)
		minutes := make([]int, 0, len(attempts))
		for _, a := range attempts {
			minutes = append(minutes, int(a/time.Minute))
		}
		require.Equal(t, []int{0, 1, 3, 7, 15, 31, 51, 71}, minutes)
		require.ErrorIs(t, fx.Ready(), store.ErrNotLoaded)
		require.ErrorContains(t, fx.Ready(), "bad file")
	})
}

func TestAtStartTheNewestVersionThatLoadsIsUsed(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.write("cat/2/model", "two")
		fx.write("cat/3/model", "bad")
		fx.open()
		fx.looks(1)
		fx.requireAnswer("cat", "two")
		require.Equal(t, "3 END (load: bad file), 2 AVAILABLE", fx.states("cat"))
	})
}

func TestRemovingTheNewestVersionGoesBackToTheOneBefore(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.write("cat/2/model", "two")
		fx.open()
		fx.looks(1)
		fx.happened()
		fx.remove("cat/2")
		fx.looks(2)
		fx.requireAnswer("cat", "one")
		happened := fx.happened()
		require.Less(t, slices.Index(happened, "cat/1 AVAILABLE"), slices.Index(happened, "cat/2 UNLOADING"))
		fx.looks(1)
		require.Equal(t, "1 AVAILABLE", fx.states("cat"))
	})
}

func TestRemovingAllVersionsOrTheModelUnloadsIt(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "cat")
		fx.write("dog/1/model", "dog")
		fx.open()
		fx.looks(1)
		fx.remove("cat/1")
		fx.remove("dog")
		fx.looks(1)
		_, err := fx.Acquire(store.Ref{Model: "cat"})
		require.ErrorIs(t, err, store.ErrNotLoaded)
		require.ErrorContains(t, err, "there is no version to serve")
		_, err = fx.Acquire(store.Ref{Model: "dog"})
		require.ErrorIs(t, err, store.ErrModel)
		require.Subset(t, fx.happened(), []string{"close cat", "close dog"})
		require.ErrorIs(t, fx.Ready(), store.ErrNotLoaded)
	})
}

func TestAFileSystemThatIsAwayForAMomentDropsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.open()
		fx.looks(1)
		away := fx.base + ".away"
		require.NoError(t, os.Rename(fx.base, away))
		fx.looks(3)
		fx.requireAnswer("cat", "one")
		require.NoError(t, os.Rename(away, fx.base))
		fx.happened()
		fx.looks(3)
		fx.requireAnswer("cat", "one")
		require.Empty(t, fx.happened())
	})
}

func TestABaseFolderMayAppearLater(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.remove("")
		fx.open()
		fx.looks(2)
		require.ErrorIs(t, fx.Ready(), os.ErrNotExist)
		_, err := fx.Acquire(store.Ref{Model: "cat"})
		require.ErrorIs(t, err, store.ErrNotLoaded)
		fx.write("cat/1/model", "one")
		fx.looks(2)
		require.NoError(t, fx.Ready())
		fx.requireAnswer("cat", "one")
	})
}

func TestACallUnderWayKeepsItsVersionOpen(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.open()
		fx.looks(1)
		first, err := fx.Acquire(store.Ref{Model: "cat"})
		require.NoError(t, err)
		second, err := fx.Acquire(store.Ref{Model: "cat"})
		require.NoError(t, err)
		fx.write("cat/2/model", "two")
		fx.looks(2)
		fx.requireAnswer("cat", "two")
		require.Equal(t, "2 AVAILABLE, 1 UNLOADING", fx.states("cat"))
		_, err = fx.Acquire(store.Ref{Model: "cat", Version: 1})
		require.ErrorIs(t, err, store.ErrVersion)

		first.Release()
		first.Release() // counts once
		synctest.Wait()
		require.False(t, second.Servable.closed.Load())
		second.Release()
		synctest.Wait()
		require.Equal(t, "2 AVAILABLE, 1 END", fx.states("cat"))
		require.Contains(t, fx.happened(), "close one")
	})
}

func TestPoliciesSayWhichVersionsAreLoaded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		policy store.Policy
		want   string
		after  string // a fifth version has been added, and it is bad
	}{
		{"latest", store.Policy{}, "4 AVAILABLE", "5 END (load: bad file), 4 AVAILABLE"},
		{"latest two", store.Policy{Latest: 2}, "4 AVAILABLE, 3 AVAILABLE", "5 END (load: bad file), 4 AVAILABLE, 3 AVAILABLE"},
		{"specific", store.Policy{Specific: []int64{1, 3}}, "3 AVAILABLE, 1 AVAILABLE", "3 AVAILABLE, 1 AVAILABLE"},
		{"all", store.Policy{All: true}, "4 AVAILABLE, 3 AVAILABLE, 2 AVAILABLE, 1 AVAILABLE", "5 END (load: bad file), 4 AVAILABLE, 3 AVAILABLE, 2 AVAILABLE, 1 AVAILABLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(fx *fixture) {
				t := fx.t
				for v := range 4 {
					fx.write(fmt.Sprintf("cat/%d/model", v+1), fmt.Sprint("answer ", v+1))
				}
				fx.config.Models = []store.Model{{Name: "cat", Policy: c.policy}}
				fx.open()
				fx.looks(1)
				require.Equal(t, c.want, fx.states("cat"))
				fx.write("cat/5/model", "bad")
				fx.looks(2)
				require.Equal(t, c.after, fx.states("cat"))
			})
		})
	}
}

func TestLabelsNameVersions(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.write("cat/2/model", "two")
		model := store.Model{Name: "cat", Policy: store.Policy{Latest: 2}, Labels: map[string]int64{"stable": 1, "canary": 2}}
		fx.config.Models = []store.Model{model}
		fx.open()
		fx.looks(1)
		answer, version := fx.ask(store.Ref{Model: "cat", Label: "stable"})
		require.Equal(t, "one", answer)
		require.EqualValues(t, 1, version)

		model.Labels = map[string]int64{"stable": 2}
		require.NoError(t, fx.Reload(t.Context(), []store.Model{model}))
		answer, _ = fx.ask(store.Ref{Model: "cat", Label: "stable"})
		require.Equal(t, "two", answer)
		_, err := fx.Acquire(store.Ref{Model: "cat", Label: "canary"})
		require.ErrorIs(t, err, store.ErrLabel)

		model.Labels = map[string]int64{"next": 3}
		err = fx.Reload(t.Context(), []store.Model{model})
		require.ErrorContains(t, err, `label "next": unknown version 3`)
	})
}

func TestReloadChangesWhatIsServedWithoutAGap(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "cat")
		fx.write("dog/1/model", "dog")
		fx.write("teams/a/cat/1/model", "another cat")
		fx.open()
		fx.looks(1)
		require.Equal(t, []string{"cat", "dog", "teams"}, fx.Models(), "found in the folder")
		fx.happened()

		require.NoError(t, fx.Reload(t.Context(), []store.Model{
			{Name: "cat", Path: "teams/a/cat"},
			{Name: "hound", Path: filepath.Join(fx.base, "dog")},
		}))
		require.Equal(t, []string{"cat", "hound"}, fx.Models())
		fx.requireAnswer("cat", "another cat")
		fx.requireAnswer("hound", "dog")
		synctest.Wait()
		happened := fx.happened()
		require.Less(t, slices.Index(happened, "warm another cat"), slices.Index(happened, "close cat"))
		require.Contains(t, happened, "dog/1 END")

		fx.write("cow/1/model", "cow")
		fx.looks(3)
		require.Equal(t, []string{"cat", "hound"}, fx.Models(), "models are not found any more once they are configured")
	})
}

func TestReloadSaysWhatCouldNotBeLoaded(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.write("dog/1/model", "bad")
		fx.open()
		fx.looks(1)
		for _, c := range []struct {
			name   string
			models []store.Model
			why    string
		}{
			{"a bad file", []store.Model{{Name: "cat"}, {Name: "dog"}}, `model "dog" is not loaded: version 1: load: bad file`},
			{"no folder", []store.Model{{Name: "cat"}, {Name: "cow"}}, "no such file or directory"},
			{"no such version", []store.Model{{Name: "cat", Policy: store.Policy{Specific: []int64{1, 7}}}}, `unknown version 7 of model "cat"`},
		} {
			require.ErrorContains(t, fx.Reload(t.Context(), c.models), c.why, c.name)
		}
		fx.requireAnswer("cat", "one")

		require.NoError(t, fx.Reload(t.Context(), []store.Model{{Name: "cat"}}))
		err := fx.Reload(t.Context(), []store.Model{{Name: "cat", Policy: store.Policy{Specific: []int64{9}}}})
		require.ErrorContains(t, err, "not loaded", "nothing that is wanted is there")
	})
}

func TestAConfigurationThatIsNotValidChangesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.open()
		fx.looks(1)
		for _, c := range []struct {
			model store.Model
			why   string
		}{
			{store.Model{}, "is empty"},
			{store.Model{Name: "../cat"}, "starts with a dot"},
			{store.Model{Name: "a/b"}, "must not contain"},
			{store.Model{Name: "a b"}, "spaces"},
			{store.Model{Name: strings.Repeat("a", 129)}, "longer than 128"},
			{store.Model{Name: "dog", Path: "../dog"}, "is not in the base folder"},
			{store.Model{Name: "dog", Path: "a/../../dog"}, "is not in the base folder"},
			{store.Model{Name: "dog", Path: "/etc"}, "is not in the base folder"},
			{store.Model{Name: "dog", Path: fx.base + "-other/dog"}, "is not in the base folder"},
			{store.Model{Name: "dog", Policy: store.Policy{Latest: -1}}, "latest -1"},
			{store.Model{Name: "dog", Policy: store.Policy{Latest: 1, All: true}}, "only one of"},
			{store.Model{Name: "dog", Policy: store.Policy{Specific: []int64{}}}, "no specific version"},
			{store.Model{Name: "dog", Policy: store.Policy{Specific: []int64{0}}}, "positive"},
			{store.Model{Name: "dog", Labels: map[string]int64{"x": 0}}, "positive"},
			{store.Model{Name: "dog", Labels: map[string]int64{"a/b": 1}}, "must not contain"},
			{store.Model{Name: "dog", Policy: store.Policy{Specific: []int64{2}}, Labels: map[string]int64{"x": 1}}, "not among"},
			{store.Model{Name: "cow"}, "named twice"},
		} {
			err := fx.Reload(t.Context(), []store.Model{{Name: "cow"}, c.model})
			require.ErrorIs(t, err, store.ErrConfig)
			require.ErrorContains(t, err, c.why)
		}
		require.Equal(t, []string{"cat"}, fx.Models())

		_, err := store.Open(store.Config[*text]{Loader: fx.config.Loader})
		require.ErrorIs(t, err, store.ErrConfig)
		_, err = store.Open(store.Config[*text]{Base: fx.base})
		require.ErrorIs(t, err, store.ErrConfig)
	})
}

func TestReloadDoesNotWaitLongerThanItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.open()
		hold := make(chan struct{})
		fx.during(func(string) { <-hold })
		fx.write("cat/1/model", "one")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, fx.Reload(ctx, []store.Model{{Name: "cat"}}), context.DeadlineExceeded)
		close(hold)
		synctest.Wait()
		fx.requireAnswer("cat", "one")
	})
}

func TestASlowLoadHoldsUpNoOtherModel(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		hold := make(chan struct{})
		fx.during(func(dir string) {
			if strings.Contains(dir, "slow") {
				<-hold
			}
		})
		fx.write("slow/1/model", "slow")
		fx.write("quick/1/model", "quick one")
		fx.open()
		fx.looks(1)
		fx.requireAnswer("quick", "quick one")
		fx.write("quick/2/model", "quick two")
		fx.looks(2)
		fx.requireAnswer("quick", "quick two")
		require.Equal(t, "1 LOADING", fx.states("slow"))
		_, err := fx.Acquire(store.Ref{Model: "slow"})
		require.ErrorIs(t, err, store.ErrNotLoaded)
		require.Error(t, fx.Ready(), "at the start every model is waited for")
		close(hold)
		synctest.Wait()
		require.NoError(t, fx.Ready())
	})
}

func TestCloseWaitsForCallsUnderWay(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "one")
		fx.open()
		fx.looks(1)
		h, err := fx.Acquire(store.Ref{Model: "cat"})
		require.NoError(t, err)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, fx.Close(ctx), context.DeadlineExceeded)
		require.False(t, h.Servable.closed.Load(), "a version in use is not freed, even when time is up")
		_, err = fx.Acquire(store.Ref{Model: "cat"})
		require.ErrorIs(t, err, store.ErrClosed)
		require.ErrorIs(t, fx.Ready(), store.ErrClosed)
		require.ErrorIs(t, fx.Reload(t.Context(), nil), store.ErrClosed)

		closed := make(chan error, 1)
		go func() { closed <- fx.Close(context.WithoutCancel(t.Context())) }()
		synctest.Wait()
		require.Empty(t, closed)
		h.Release()
		require.NoError(t, <-closed)
		require.Contains(t, fx.happened(), "close one")
	})
}

func TestNoCallEverHoldsAClosedVersion(t *testing.T) {
	t.Parallel()
	bubble(t, func(fx *fixture) {
		t := fx.t
		fx.write("cat/1/model", "1")
		fx.open()
		fx.looks(1)
		stop := make(chan struct{})
		var calls sync.WaitGroup
		var failed atomic.Int64
		var answered [12]atomic.Int64
		for worker := range 8 {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			calls.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(random.IntN(200)) * time.Millisecond):
					}
					h, err := fx.Acquire(store.Ref{Model: "cat"})
					if err != nil {
						failed.Add(1)
						continue
					}
					time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
					if h.Servable.closed.Load() || h.Servable.answer != fmt.Sprint(h.Version) {
						failed.Add(1)
					}
					answered[h.Version].Add(1)
					h.Release()
				}
			})
		}
		for v := 2; v < len(answered); v++ {
			fx.write(fmt.Sprintf("cat/.%d/model", v), fmt.Sprint(v))
			fx.rename(fmt.Sprintf("cat/.%d", v), fmt.Sprintf("cat/%d", v))
			fx.looks(4)
		}
		close(stop)
		calls.Wait()
		require.Zero(t, failed.Load())
		for v := 1; v < len(answered); v++ {
			require.Positive(t, answered[v].Load(), "version %d", v)
		}
	})
}

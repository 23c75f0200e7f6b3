package worker

import (
	"crypto/sha256"
	"sync"

	"github.com/google/uuid"

	"github.com/ebb-inference/ebb/events"
)

// The bounds of what a Worker remembers of questions that may be asked again: how many answers, and how much memory they
// may take, roughly.
const (
	recentAnswers     = 1024
	recentAnswerBytes = 8 << 20
)

// question is what a client asks that names its request itself: whoever asks it again sends an event of the same id, from
// another replica of ingress perhaps, and surely to be answered elsewhere. Ids are not secret; so it is the picture, too,
// and nobody can learn the answer about a picture that they do not have.
type question struct {
	id      string
	picture [sha256.Size]byte
}

// questionOf says what r asks. False says that its id is not one that is made of what is asked (UUIDv8): then nobody asks
// it twice.
func questionOf(r *events.Request) (question, bool) {
	if u, err := uuid.Parse(r.ID); err != nil || u.Version() != 8 {
		return question{}, false
	}
	return question{id: r.ID, picture: sha256.Sum256(r.Data)}, true
}

// memo remembers the questions under way and the answers that were given last, so that what is asked again is not computed
// again.
type memo struct {
	mu      sync.Mutex
	entries map[question]*thought
	recent  []*thought // with an answer, oldest first
	bytes   int
}

// thought is one question and, when done is closed, its answer; nil when there is none to remember.
type thought struct {
	question question
	done     chan struct{}
	answer   *events.Answer
	bytes    int
}

func newMemo() *memo { return &memo{entries: make(map[question]*thought)} }

// begin enters a question. When it returns true the caller answers it, and must call finish. Otherwise somebody else does,
// or did.
func (m *memo) begin(q question) (th *thought, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if th := m.entries[q]; th != nil {
		return th, false
	}
	th = &thought{question: q, done: make(chan struct{})}
	m.entries[q] = th
	return th, true
}

// finish says what the answer is. Without one the question is forgotten: what fails may succeed another time.
func (m *memo) finish(th *thought, a *events.Answer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(th.done)
	if a == nil {
		delete(m.entries, th.question)
		return
	}
	th.answer, th.bytes = a, sizeOf(a)
	m.recent = append(m.recent, th)
	m.bytes += th.bytes
	for len(m.recent) > recentAnswers || m.bytes > recentAnswerBytes {
		oldest := m.recent[0]
		m.recent[0] = nil
		m.recent = m.recent[1:]
		m.bytes -= oldest.bytes
		delete(m.entries, oldest.question)
	}
}

// sizeOf is about how much memory an answer takes, with its place here.
func sizeOf(a *events.Answer) int {
	n := 512
	for _, c := range a.Top {
		n += 32 + len(c.Label)
	}
	return n
}

package topology

import (
	"crypto/md5" //nolint:gosec // the controller names things by it; nothing is secured
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/ebb-inference/ebb/events/trigger"
)

// Broker is a Knative Broker. In a cluster Kubernetes gives it its UID; NewBroker makes one.
type Broker struct{ Namespace, Name, UID string }

// NewBroker is a Broker outside of a cluster.
func NewBroker(namespace, name string) Broker {
	return Broker{Namespace: namespace, Name: name, UID: uid("broker", namespace, name)}
}

// space is the namespace of the UIDs that are made here.
var space = uuid.MustParse("8e0c6f5a-6f0b-5c1e-9d0e-3a3f1b7f4c52")

// uid is always the same for the same names, so that what is durable is found again.
func uid(parts ...string) string {
	return uuid.NewSHA1(space, []byte(strings.Join(parts, "\x00"))).String()
}

// Exchange is where events are published.
func (b Broker) Exchange() string { return childName("b."+b.Namespace+"."+b.Name+".", b.UID) }

// Names is what the things of a Trigger are called in RabbitMQ.
type Names struct {
	Queue              string // of the Trigger
	DeadLetterExchange string
	DeadLetterQueue    string
	policy             string // of the controller's making
}

// Trigger names the things of t, one of b's Triggers.
func (b Broker) Trigger(t trigger.Trigger) Names {
	own := t.Namespace + "." + t.Name + "."
	id := uid("trigger", b.UID, t.Namespace, t.Name)
	return Names{
		Queue:              own + b.UID, // the Broker's, unlike the others; and never shortened
		DeadLetterExchange: childName("t."+own+"dlx.", id),
		DeadLetterQueue:    childName("t."+own+"dlq.", id),
		policy:             childName("t."+own, id),
	}
}

// policy is a RabbitMQ policy for queues.
type policy struct {
	name       string
	Pattern    string         `json:"pattern"`
	Definition map[string]any `json:"definition"`
	Priority   int            `json:"priority"`
	ApplyTo    string         `json:"apply-to"`
}

const (
	controllersPriority = 1
	limitPriority       = 10 // only the policy with the highest priority counts
)

// deadLetterPolicy is the controller's.
func (n Names) deadLetterPolicy() policy {
	return policy{
		name: n.policy, Pattern: "^" + regexp.QuoteMeta(n.Queue) + "$", Priority: controllersPriority, ApplyTo: "queues",
		Definition: map[string]any{"dead-letter-exchange": n.DeadLetterExchange},
	}
}

// limitPolicy is ours. RabbitMQ applies one policy to a queue, so it repeats what the controller's says. What waited too long
// leaves the queue only when the queue of dead letters has it.
func (n Names) limitPolicy(l Limits) policy {
	return policy{
		name: "ebb." + n.policy, Pattern: "^" + regexp.QuoteMeta(n.Queue) + "$", Priority: limitPriority, ApplyTo: "queues",
		Definition: map[string]any{
			"dead-letter-exchange": n.DeadLetterExchange,
			"dead-letter-strategy": "at-least-once",
			"message-ttl":          l.TTL.Milliseconds(),
			"max-length":           l.MaxEvents,
			"max-length-bytes":     l.MaxBytes,
			"overflow":             "reject-publish",
		},
	}
}

const (
	longestName = 63 // of an object in Kubernetes
	longestHead = longestName - 2*md5.Size
)

// childName is prefix and uid or, when that is too long for Kubernetes, what Knative makes of them: the beginning of
// prefix, a hash of both, and as much of uid as there is room for. uid has 36 characters.
func childName(prefix, uid string) string {
	if len(prefix)+len(uid) <= longestName {
		return prefix + uid
	}
	hash := md5.Sum([]byte(prefix + uid)) //nolint:gosec // as above
	name := prefix[:min(len(prefix), longestHead)] + hex.EncodeToString(hash[:])
	name += uid[:longestName-len(name)]
	return strings.TrimRight(name, "-.")
}

// Package trigger reads Knative Triggers: which events go to whom, how often delivery is tried, and where an event goes
// that nobody took. The same YAML that is applied to a cluster says it to a broker on a laptop.
//
// It takes what the RabbitMQ broker of Knative honours and refuses the rest, so that a Trigger means here what it means
// there. It knows nothing of delivering.
package trigger

import (
	"maps"
	"time"
)

// Trigger is one Knative Trigger.
type Trigger struct {
	Namespace, Name string // Namespace is "" when the manifest leaves it to whoever applies it
	Broker          string
	Filter          map[string]string // attributes an event must have, with exactly these values; empty: every event
	Subscriber      Destination
	Delivery        Delivery
}

// Destination is where events are sent: a Service by Namespace and Name, at Path, or an absolute URI.
type Destination struct {
	Namespace, Name string
	URI             string // http or https; "" when Name is set
	Path            string // on the Service, "" or starting with "/"
}

// Delivery is how a broker delivers to a Subscriber.
type Delivery struct {
	Parallelism  int           // deliveries under way at once, 1 to MaxParallelism
	Retry        int           // attempts after the first, 0 to MaxRetry
	Backoff      Policy        // how the pause before an attempt grows
	BackoffDelay time.Duration // what it grows from
	Timeout      time.Duration // of one attempt
	DeadLetter   *Destination  // who gets what the Subscriber did not take; Parse always sets it
}

// Policy is how the pause before attempt n+1 grows with n, the retries made so far and this one.
type Policy string

// The policies.
const (
	Linear      Policy = "linear"      // BackoffDelay * n
	Exponential Policy = "exponential" // BackoffDelay * 2^n
)

// The limits of a Trigger.
const (
	MaxParallelism  = 100 // what the RabbitMQ dispatcher's prefetch allows
	MaxRetry        = 100
	MaxBackoffDelay = 10 * time.Minute
	MaxTimeout      = time.Hour
	MaxFileBytes    = 1 << 20 // of one file of Triggers
)

// MaxPause bounds one pause, however far an exponential policy has grown.
const MaxPause = time.Hour

// Pause is how long to wait before retry number n, counted from 1.
func (d Delivery) Pause(n int) time.Duration {
	pause := d.BackoffDelay
	switch d.Backoff {
	case Linear:
		pause *= time.Duration(n) // at most MaxBackoffDelay * MaxRetry: no overflow
	case Exponential:
		for ; n > 0 && pause < MaxPause; n-- {
			pause *= 2
		}
	}
	return min(pause, MaxPause)
}

// String is "namespace/name", or the name alone.
func (t Trigger) String() string {
	if t.Namespace == "" {
		return t.Name
	}
	return t.Namespace + "/" + t.Name
}

// AttemptsBy says how often delivery is tried, by the value of an attribute that the Triggers filter. A value of which they
// say different things is left out.
func AttemptsBy(attribute string, triggers []Trigger) map[string]int {
	attempts := map[string]int{}
	differ := map[string]bool{}
	for _, t := range triggers {
		value, ok := t.Filter[attribute]
		if !ok {
			continue
		}
		n := t.Delivery.Retry + 1
		differ[value] = differ[value] || attempts[value] != 0 && attempts[value] != n
		attempts[value] = n
	}
	maps.DeleteFunc(attempts, func(value string, _ int) bool { return differ[value] })
	return attempts
}

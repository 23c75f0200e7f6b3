package knative

import (
	"fmt"
	"maps"
	"net"
	"slices"

	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
)

// The tags that revisions get. They are names for people and, as addresses, for the check of a candidate; what serves is said
// by the percents.
const (
	tagCurrent   = "current"
	tagCandidate = "candidate"
	tagPrevious  = "previous"
)

const whole = 100 // percent

// traffic is how a Service's traffic goes, all of it by the names of revisions.
type traffic struct {
	shares []share
	tagged map[string]string // revisions by our tags
	others []servingv1.TrafficTarget
}

// share is what a revision gets.
type share struct {
	revision string
	percent  int64
}

// readTraffic reads the traffic of a Service whose latest ready revision has that name.
func readTraffic(targets []servingv1.TrafficTarget, latest string) traffic {
	now := traffic{tagged: map[string]string{}}
	for _, target := range targets {
		revision := target.RevisionName
		if revision == "" {
			revision = latest
		}
		if target.Percent != nil && *target.Percent > 0 && revision != "" {
			now = now.add(revision, *target.Percent)
		}
		switch target.Tag {
		case "":
		case tagCurrent, tagCandidate, tagPrevious:
			now.tagged[target.Tag] = revision
		default: // somebody's address, which stays what it is
			target.Percent, target.URL = nil, nil
			now.others = append(now.others, target)
		}
	}
	return now
}

// specTraffic is how traffic is to go.
func specTraffic(svc *servingv1.Service) traffic {
	return readTraffic(svc.Spec.Traffic, svc.Status.LatestReadyRevisionName)
}

func (now traffic) add(revision string, percent int64) traffic {
	for i := range now.shares {
		if now.shares[i].revision == revision {
			now.shares[i].percent += percent
			return now
		}
	}
	now.shares = append(now.shares, share{revision, percent})
	return now
}

func (now traffic) percent(revision string) int64 {
	for _, s := range now.shares {
		if s.revision == revision {
			return s.percent
		}
	}
	return 0
}

// serving is the revision with the most; of two with the same, that which did before the other came.
func (now traffic) serving() string { return now.servingWithout("") }

func (now traffic) servingWithout(candidate string) string {
	var most share
	for _, s := range now.shares {
		if s.revision != candidate && (s.percent > most.percent || s.percent == most.percent && s.revision == now.tagged[tagCurrent]) {
			most = s
		}
	}
	return most.revision
}

// before is what served before the candidate, or still does.
func (now traffic) before(candidate string) string {
	if serving := now.servingWithout(candidate); serving != "" {
		return serving
	}
	if previous := now.tagged[tagPrevious]; previous != candidate {
		return previous
	}
	return ""
}

// split gives out the whole traffic anew; what somebody else tagged keeps its tag.
func (now traffic) split(tagged map[string]string, shares ...share) traffic {
	maps.DeleteFunc(tagged, func(_, revision string) bool { return revision == "" })
	return traffic{shares: shares, tagged: tagged, others: now.others}
}

// pinned goes as now, but nothing of it to what comes later.
func (now traffic) pinned() traffic {
	serving := now.tagged[tagCurrent]
	if now.percent(serving) == 0 {
		serving = now.serving()
	}
	if serving == "" {
		return now
	}
	tagged := maps.Clone(now.tagged)
	maps.DeleteFunc(tagged, func(_, revision string) bool { return revision == serving })
	tagged[tagCurrent] = serving
	return now.split(tagged, now.shares...)
}

// staged gives the candidate an address, and no traffic that it has not.
func (now traffic) staged(candidate string) traffic {
	if now.servingWithout(candidate) == "" {
		// The first version of all: Knative gave it what nothing else could take.
		return now.split(map[string]string{tagCandidate: candidate}, share{candidate, whole})
	}
	tagged := maps.Clone(now.tagged)
	maps.DeleteFunc(tagged, func(_, revision string) bool { return revision == candidate })
	tagged[tagCandidate] = candidate
	return now.split(tagged, now.shares...)
}

// shifted gives the candidate so much, and the rest to what serves. What has all of it is left alone.
func (now traffic) shifted(candidate string, percent int64) traffic {
	before := now.before(candidate)
	switch {
	case before == "":
		return now.split(map[string]string{tagCurrent: candidate}, share{candidate, whole})
	case now.percent(candidate) == whole:
		tagged := map[string]string{tagPrevious: before, tagCurrent: candidate}
		return now.split(tagged, share{candidate, whole})
	case percent == whole:
		return now.split(map[string]string{tagCurrent: candidate, tagPrevious: before}, share{candidate, whole})
	}
	tagged := map[string]string{tagCurrent: before, tagCandidate: candidate}
	if previous := now.tagged[tagPrevious]; previous != before && previous != candidate {
		tagged[tagPrevious] = previous
	}
	return now.split(tagged, share{before, whole - percent}, share{candidate, percent})
}

// without gives what the candidate has back to what served before.
func (now traffic) without(candidate string) traffic {
	before := now.before(candidate)
	if before == "" {
		return now // there is nothing else
	}
	tagged := map[string]string{tagCurrent: before}
	if previous := now.tagged[tagPrevious]; previous != before && previous != candidate {
		tagged[tagPrevious] = previous
	}
	if now.percent(candidate) == 0 {
		return now.split(tagged, now.shares...)
	}
	return now.split(tagged, share{before, whole})
}

// returned gives everything to a revision that is kept.
func (now traffic) returned(revision string) traffic {
	return now.split(map[string]string{tagCurrent: revision, tagPrevious: now.before(revision)}, share{revision, whole})
}

// targets is the traffic as Knative takes it, in an order that depends on nothing else.
func (now traffic) targets() []servingv1.TrafficTarget {
	tags := map[string]string{}
	for tag, revision := range now.tagged {
		tags[revision] = tag
	}
	var targets []servingv1.TrafficTarget
	add := func(revision string, percent int64, tag string) {
		latest := false
		targets = append(targets, servingv1.TrafficTarget{RevisionName: revision, LatestRevision: &latest, Percent: &percent, Tag: tag})
	}
	for _, s := range now.shares {
		add(s.revision, s.percent, tags[s.revision])
	}
	for _, tag := range slices.Sorted(maps.Keys(now.tagged)) {
		if revision := now.tagged[tag]; now.percent(revision) == 0 {
			add(revision, 0, tag)
		}
	}
	return append(targets, now.others...)
}

// needs are the revisions that must not be deleted: those that the traffic names, and the latest, which Knative would make again.
func needs(svc *servingv1.Service) map[string]bool {
	needed := map[string]bool{
		svc.Status.LatestCreatedRevisionName: true, svc.Status.LatestReadyRevisionName: true, svc.Annotations[annotationCandidate]: true,
	}
	for _, target := range slices.Concat(svc.Spec.Traffic, svc.Status.Traffic) {
		needed[target.RevisionName] = true
	}
	return needed
}

// notRouted says what keeps traffic from going as the Service says; nothing when it does.
func notRouted(svc *servingv1.Service) string {
	if svc.Status.ObservedGeneration != svc.Generation {
		return "Knative has not seen the change of Service " + svc.Name
	}
	for _, want := range svc.Spec.Traffic {
		if want.RevisionName != "" && !slices.ContainsFunc(svc.Status.Traffic, func(is servingv1.TrafficTarget) bool {
			return is.RevisionName == want.RevisionName && is.Tag == want.Tag && percentOf(is) == percentOf(want)
		}) {
			return fmt.Sprintf("traffic of Service %s does not go to revision %s yet%s", svc.Name, want.RevisionName, routeTrouble(svc))
		}
	}
	// Of a Service that nothing could serve yet, the route cannot be ready.
	if len(svc.Status.Traffic) > 0 && !svc.Status.GetCondition(servingv1.ServiceConditionRoutesReady).IsTrue() {
		return "the route of Service " + svc.Name + " is not ready" + routeTrouble(svc)
	}
	return ""
}

func routeTrouble(svc *servingv1.Service) string {
	c := svc.Status.GetCondition(servingv1.ServiceConditionRoutesReady)
	if c == nil || c.Message == "" {
		return ""
	}
	return ": " + c.Message
}

func percentOf(target servingv1.TrafficTarget) int64 {
	if target.Percent == nil {
		return 0
	}
	return *target.Percent
}

// addressOf is where, within the cluster, the revision with a tag is asked by gRPC.
func addressOf(svc *servingv1.Service, tag string) (string, error) {
	for _, target := range svc.Status.Traffic {
		if target.Tag == tag && target.URL != nil {
			return hostPort(target.URL), nil
		}
	}
	return "", fmt.Errorf("the Service %s has no address with the tag %s", svc.Name, tag)
}

// hostPort is what is dialled for a URL of Knative's, which are plain HTTP within a cluster.
func hostPort(at *apis.URL) string {
	if at.URL().Port() != "" {
		return at.Host
	}
	return net.JoinHostPort(at.Host, "80")
}

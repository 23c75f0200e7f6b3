// Package knative rolls out versions of a network that a Knative Service serves.
//
// A version is an image, and with that a revision: the server's own image and the version's files. To roll one out is to bring
// its revision up beside the one that serves, and to move the Service's traffic to it, which is pinned to revisions by their
// names. All that is known is read from the Service and its revisions each time, so that it does not matter who did the step
// before, nor whether it was done with kn.
//
// It knows nothing of sources, of pictures and of when to do what: that is package rollout's.
package knative

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	"knative.dev/serving/pkg/client/clientset/versioned"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// Builder makes the images of versions.
type Builder interface {
	// Build makes the image that is the server's and serves one version of the network, puts it where the cluster finds it, and
	// returns its reference, by digest. The same version of the same server has the same reference. base is the folder of
	// networks in the server's image, where its container has been told so; empty: as the image itself says.
	Build(ctx context.Context, server, base, network string, c rollout.Candidate) (image string, err error)
	// Remove removes an image that nothing needs any more. Not every registry lets it.
	Remove(ctx context.Context, image string) error
}

// The times that a Target takes for what a cluster does.
const (
	defaultReady    = 5 * time.Minute // pulling, starting, loading
	defaultRoute    = time.Minute     // moving traffic
	defaultInterval = 2 * time.Second // between looks, when nothing woke it before
)

// conflicts is how often, and how soon, a change is tried again that somebody else's change came before. Knative's own
// controllers write to a Service several times while it changes.
var conflicts = wait.Backoff{Steps: 10, Duration: 10 * time.Millisecond, Factor: 2, Jitter: 0.2, Cap: time.Second}

// Config is where a network is served.
type Config struct {
	Serving    versioned.Interface
	Kubernetes kubernetes.Interface
	Namespace  string
	Service    string // Knative's
	Network    string // its name at the server
	Builder    Builder
	// ReadyTimeout is for a revision to be pulled, started and loaded, default 5 minutes; RouteTimeout for a change of the traffic,
	// default 1 minute; Interval between two looks when nothing calls for one, default 2 seconds.
	ReadyTimeout, RouteTimeout, Interval time.Duration
	Logger                               *slog.Logger // default slog.Default()
}

// Target is a rollout.Target.
type Target struct{ cfg Config }

var _ rollout.Target = (*Target)(nil)

// New returns the Target of a network. Nothing is asked yet.
func New(cfg Config) *Target {
	cfg.ReadyTimeout = cmp.Or(cfg.ReadyTimeout, defaultReady)
	cfg.RouteTimeout = cmp.Or(cfg.RouteTimeout, defaultRoute)
	cfg.Interval = cmp.Or(cfg.Interval, defaultInterval)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Logger = cfg.Logger.With("network", cfg.Network, "service", cfg.Service)
	return &Target{cfg}
}

// Serving is what the Service's traffic says, and its revisions.
func (t *Target) Serving(ctx context.Context) (rollout.Serving, error) {
	svc, err := t.service(ctx)
	if err != nil {
		return rollout.Serving{}, err
	}
	now := readTraffic(svc.Status.Traffic, svc.Status.LatestReadyRevisionName)
	name := now.serving()
	if name == "" {
		return rollout.Serving{}, nil
	}
	revisions, err := t.revisions(ctx)
	if err != nil {
		return rollout.Serving{}, err
	}
	main := byName(revisions, name)
	if main == nil {
		return rollout.Serving{}, fmt.Errorf("revision %s of Service %s has traffic and is not there", name, t.cfg.Service)
	}
	known := readAsked(svc)
	var found rollout.Serving
	if found.Version = versionOf(main, known); found.Version == 0 {
		if found.Version, err = t.ask(ctx, svc, main); err != nil {
			return rollout.Serving{}, err
		}
	}
	found.Kept = append(found.Kept, found.Version)
	for _, r := range revisions {
		if v := versionOf(r, known); v != 0 && r.IsReady() {
			found.Kept = append(found.Kept, v)
		}
	}
	slices.Sort(found.Kept)
	found.Kept = slices.Compact(found.Kept)
	// A template with an image that is not made of a version is one that somebody applied.
	_, ours := madeOf(svc.Spec.Template.Annotations, &svc.Spec.Template.Spec)
	found.Renew = !ours && !sameServer(&svc.Spec.Template, templateOf(main))
	return found, nil
}

// Stage makes a revision of the candidate.
func (t *Target) Stage(ctx context.Context, c rollout.Candidate) (string, error) {
	// Before there is another revision, so that it does not get what traffic goes to the latest.
	svc, err := t.updateRouted(ctx, func(svc *servingv1.Service) error {
		now := specTraffic(svc).pinned()
		svc.Spec.Traffic = now.targets()
		if now.percent(svc.Annotations[annotationCandidate]) == whole {
			delete(svc.Annotations, annotationCandidate) // that roll-out is over: this may be the same version on another server
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("pinning traffic: %w", err)
	}
	revision, err := t.bring(ctx, svc, c)
	if err != nil {
		return "", err
	}
	if err := t.ready(ctx, revision, c); err != nil {
		return "", err
	}
	svc, err = t.updateRouted(ctx, func(svc *servingv1.Service) error {
		svc.Spec.Traffic = specTraffic(svc).staged(revision).targets()
		setAnnotation(&svc.ObjectMeta, annotationCandidate, revision)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("giving revision %s an address: %w", revision, err)
	}
	address, err := addressOf(svc, tagCandidate)
	if err != nil {
		return "", err
	}
	return address, t.answers(ctx, address, c)
}

// bring returns the name of the candidate's revision, which it makes when there is none.
func (t *Target) bring(ctx context.Context, svc *servingv1.Service, c rollout.Candidate) (string, error) {
	revisions, err := t.revisions(ctx)
	if err != nil {
		return "", err
	}
	attempt := 0
	given := staged(revisions, svc, c) // that is under way, whatever was applied meanwhile
	if given == nil {
		given = find(revisions, svc, c)
	}
	if given != nil {
		gone, err := t.givenUp(ctx, given)
		if err != nil {
			return "", err
		}
		if !gone {
			return given.Name, nil
		}
		attempt, _ = strconv.Atoi(given.Annotations[annotationAttempt])
		attempt++
	}
	server, base, err := serverOf(&svc.Spec.Template)
	if err != nil {
		return "", fmt.Errorf("the template of Service %s: %w", t.cfg.Service, err)
	}
	if c.Dir == "" {
		return "", fmt.Errorf("version %d has no revision yet, and its files are not here", c.Version)
	}
	image, err := t.cfg.Builder.Build(ctx, server, base, t.cfg.Network, c)
	if err != nil {
		return "", fmt.Errorf("image of version %d: %w", c.Version, err)
	}
	if _, err = t.update(ctx, func(svc *servingv1.Service) error {
		if now, _, err := serverOf(&svc.Spec.Template); err != nil || now != server {
			return fmt.Errorf("another server was applied while version %d was made ready for %s", c.Version, server)
		}
		setVersion(&svc.Spec.Template, server, image, attempt, c)
		return nil
	}); err != nil {
		return "", fmt.Errorf("making a revision of version %d: %w", c.Version, err)
	}
	t.cfg.Logger.InfoContext(ctx, "version has an image", "version", c.Version, "image", image)
	var name string
	err = t.until(ctx, t.cfg.RouteTimeout, t.watchRevisions, func(ctx context.Context) (string, error) {
		svc, err := t.service(ctx)
		if err != nil {
			return "", err
		}
		revisions, err := t.revisions(ctx)
		if err != nil {
			return "", err
		}
		made := find(revisions, svc, c)
		if made == nil || (given != nil && made.Name == given.Name) {
			return fmt.Sprintf("Knative has not made a revision of version %d", c.Version), nil
		}
		name = made.Name
		return "", nil
	})
	return name, err
}

// Shift moves traffic to the staged revision.
func (t *Target) Shift(ctx context.Context, c rollout.Candidate, percent int) error {
	if percent < 1 || percent > 100 {
		return fmt.Errorf("%d percent of the traffic: want 1 to 100", percent)
	}
	revisions, err := t.revisions(ctx)
	if err != nil {
		return err
	}
	_, err = t.updateRouted(ctx, func(svc *servingv1.Service) error {
		r := staged(revisions, svc, c)
		if r == nil {
			return fmt.Errorf("version %d is not staged", c.Version)
		}
		svc.Spec.Traffic = specTraffic(svc).shifted(r.Name, int64(percent)).targets()
		return nil
	})
	return err
}

// Abandon moves traffic away from the candidate and deletes its revision. The Service's template is put back too: otherwise the next
// who changes anything of it would make a revision of the version again, and a Service whose latest revision fails is not Ready.
func (t *Target) Abandon(ctx context.Context, c rollout.Candidate) error {
	revisions, err := t.revisions(ctx)
	if err != nil {
		return err
	}
	_, err = t.updateRouted(ctx, func(svc *servingv1.Service) error {
		now := specTraffic(svc)
		if r := staged(revisions, svc, c); r != nil {
			if c.Percent > 0 || r.Name != now.serving() { // otherwise it was rolled out before, or given its traffic by hand
				now = now.without(r.Name)
				svc.Spec.Traffic = now.targets()
			}
			delete(svc.Annotations, annotationCandidate)
		}
		main := byName(revisions, now.serving())
		if made, ours := madeOf(svc.Spec.Template.Annotations, &svc.Spec.Template.Spec); main != nil && ours && made.is(c) && !sameTemplate(&svc.Spec.Template, templateOf(main)) {
			svc.Spec.Template = *templateOf(main)
		}
		return nil
	})
	if err != nil {
		return err
	}
	svc, err := t.settled(ctx)
	if err != nil {
		return err
	}
	return t.discard(ctx, svc, revisions, func(r *servingv1.Revision) bool {
		made, ours := madeOf(r.Annotations, &r.Spec)
		return ours && made.is(c)
	})
}

// Return moves all traffic to a revision of the version.
func (t *Target) Return(ctx context.Context, version int64) error {
	revisions, err := t.revisions(ctx)
	if err != nil {
		return err
	}
	_, err = t.updateRouted(ctx, func(svc *servingv1.Service) error {
		now, known := specTraffic(svc), readAsked(svc)
		if main := byName(revisions, now.serving()); main != nil && versionOf(main, known) == version && now.percent(main.Name) == whole {
			return nil
		}
		r := representative(revisions, now, known, version)
		if r == nil {
			return fmt.Errorf("%w: version %d has no revision of Service %s that is ready", rollout.ErrGone, version, t.cfg.Service)
		}
		svc.Spec.Traffic = now.returned(r.Name).targets()
		delete(svc.Annotations, annotationCandidate)
		return nil
	})
	return err
}

// Prune deletes the revisions of other versions, and what was left over of those that are kept. Revisions of which nobody knows
// what they serve are left to Knative, which deletes them when there are many.
func (t *Target) Prune(ctx context.Context, keep []int64) error {
	revisions, err := t.revisions(ctx)
	if err != nil {
		return err
	}
	var unneeded []*servingv1.Revision
	svc, err := t.updateRouted(ctx, func(svc *servingv1.Service) error {
		now, known := specTraffic(svc), readAsked(svc)
		if r := byName(revisions, now.tagged[tagPrevious]); r != nil && now.percent(r.Name) == 0 && !slices.Contains(keep, versionOf(r, known)) {
			delete(now.tagged, tagPrevious)
			svc.Spec.Traffic = now.targets()
		}
		unneeded = unneeded[:0]
		for _, r := range revisions {
			if v := versionOf(r, known); v != 0 && (!slices.Contains(keep, v) || representative(revisions, now, known, v) != r) {
				unneeded = append(unneeded, r)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.discard(ctx, svc, revisions, func(r *servingv1.Revision) bool { return slices.Contains(unneeded, r) }); err != nil {
		return err
	}
	if revisions, err = t.revisions(ctx); err != nil {
		return err
	}
	_, err = t.update(ctx, func(svc *servingv1.Service) error {
		forget(svc, revisions)
		return nil
	})
	return err
}

// discard deletes those of the revisions that are not needed, and their images, unless others have them too.
func (t *Target) discard(ctx context.Context, svc *servingv1.Service, revisions []*servingv1.Revision, unneeded func(*servingv1.Revision) bool) error {
	needed, inUse := needs(svc), map[string]bool{}
	for _, r := range revisions {
		inUse[imageOf(r)] = inUse[imageOf(r)] || needed[r.Name] || !unneeded(r)
	}
	for _, r := range revisions {
		if needed[r.Name] || !unneeded(r) {
			continue
		}
		if err := t.delete(ctx, r.Name); err != nil {
			return err
		}
		if _, ours := madeOf(r.Annotations, &r.Spec); ours && !inUse[imageOf(r)] {
			if err := t.cfg.Builder.Remove(ctx, imageOf(r)); err != nil {
				t.cfg.Logger.InfoContext(ctx, "image was not removed from its registry", "image", imageOf(r), "error", err)
			}
		}
	}
	return nil
}

func (t *Target) delete(ctx context.Context, revision string) error {
	err := t.cfg.Serving.ServingV1().Revisions(t.cfg.Namespace).Delete(ctx, revision, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting revision %s: %w", revision, err)
	}
	t.cfg.Logger.InfoContext(ctx, "revision was deleted", "revision", revision)
	return nil
}

func (t *Target) service(ctx context.Context) (*servingv1.Service, error) {
	svc, err := t.cfg.Serving.ServingV1().Services(t.cfg.Namespace).Get(ctx, t.cfg.Service, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("the Knative Service %s/%s: %w", t.cfg.Namespace, t.cfg.Service, err)
	}
	return svc, nil
}

// selector is of what belongs to the Service.
func (t *Target) selector() string {
	return labels.Set{serving.ServiceLabelKey: t.cfg.Service}.String()
}

// revisions are the Service's, the newest first; those that are being deleted are not among them.
func (t *Target) revisions(ctx context.Context) ([]*servingv1.Revision, error) {
	list, err := t.cfg.Serving.ServingV1().Revisions(t.cfg.Namespace).List(ctx, metav1.ListOptions{LabelSelector: t.selector()})
	if err != nil {
		return nil, fmt.Errorf("revisions of Service %s/%s: %w", t.cfg.Namespace, t.cfg.Service, err)
	}
	found := make([]*servingv1.Revision, 0, len(list.Items))
	for i := range list.Items {
		if r := &list.Items[i]; r.DeletionTimestamp == nil {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b *servingv1.Revision) int {
		return cmp.Or(cmp.Compare(generation(b), generation(a)), cmp.Compare(b.Name, a.Name))
	})
	return found, nil
}

// update changes the Service by what it is now, again when somebody else changed it meanwhile, and not at all when it is so
// already.
func (t *Target) update(ctx context.Context, change func(*servingv1.Service) error) (updated *servingv1.Service, err error) {
	err = retry.RetryOnConflict(conflicts, func() error {
		svc, err := t.service(ctx)
		if err != nil {
			return err
		}
		wanted := svc.DeepCopy()
		if err := change(wanted); err != nil {
			return err
		}
		if unchanged(svc, wanted) {
			updated = svc
			return nil
		}
		if updated, err = t.cfg.Serving.ServingV1().Services(t.cfg.Namespace).Update(ctx, wanted, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("changing Service %s/%s: %w", t.cfg.Namespace, t.cfg.Service, err)
		}
		return nil
	})
	return updated, err
}

// updateRouted is update, and the wait until traffic goes as the Service says.
func (t *Target) updateRouted(ctx context.Context, change func(*servingv1.Service) error) (*servingv1.Service, error) {
	svc, err := t.update(ctx, change)
	if err != nil {
		return nil, err
	}
	err = t.until(ctx, t.cfg.RouteTimeout, t.watchService, func(ctx context.Context) (string, error) {
		if svc, err = t.service(ctx); err != nil {
			return "", err
		}
		return notRouted(svc), nil
	})
	return svc, err
}

// settled waits until the latest revision is of the template's image. It is not waited for to be ready.
func (t *Target) settled(ctx context.Context) (svc *servingv1.Service, err error) {
	err = t.until(ctx, t.cfg.RouteTimeout, t.watchService, func(ctx context.Context) (string, error) {
		if svc, err = t.service(ctx); err != nil {
			return "", err
		}
		revisions, err := t.revisions(ctx)
		if err != nil {
			return "", err
		}
		latest := byName(revisions, svc.Status.LatestCreatedRevisionName)
		if latest != nil && imageOf(latest) == imageIn(&svc.Spec.Template.Spec) {
			return "", nil
		}
		return "Knative has not made a revision of the template that serves", nil
	})
	return svc, err
}

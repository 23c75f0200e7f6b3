package knative

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
)

// What a revision's annotations, and those of the template it is made of, say about the version in its image. They are true of
// the image that annotationImage names only: `ko apply` and kn put another image into the container and leave them as they are.
const (
	annotationVersion = "ebb.dev/version"
	annotationDigest  = "ebb.dev/digest"  // of its files
	annotationSource  = "ebb.dev/source"  // where it was published
	annotationServer  = "ebb.dev/server"  // the image that the version was added to
	annotationImage   = "ebb.dev/image"   // that came of it
	annotationAttempt = "ebb.dev/attempt" // counts revisions that Knative gave up
)

// What a Service's annotations say.
const (
	annotationCandidate = "ebb.dev/candidate" // the revision that is being rolled out, or was last
	annotationAsked     = "ebb.dev/versions"  // what revisions serve whose annotations do not say it, as JSON
)

// modelBase is the variable that tells modelserver, and TensorFlow Serving's images made like it, where networks are.
const modelBase = "MODEL_BASE"

// made is what an image was made of.
type made struct {
	version int64
	digest  string
	server  string
}

func (m made) is(c rollout.Candidate) bool { return m.version == c.Version && m.digest == c.Digest }

// madeOf says what the image of a template or a revision was made of, and whether we made it.
func madeOf(annotations map[string]string, spec *servingv1.RevisionSpec) (made, bool) {
	c := containerOf(spec)
	version, err := strconv.ParseInt(annotations[annotationVersion], 10, 64)
	if c == nil || c.Image == "" || c.Image != annotations[annotationImage] || err != nil || version <= 0 {
		return made{}, false
	}
	return made{version, annotations[annotationDigest], annotations[annotationServer]}, true
}

// containerOf is the server's: that which has the port, among others.
func containerOf(spec *servingv1.RevisionSpec) *corev1.Container {
	for i := range spec.Containers {
		if len(spec.Containers) == 1 || len(spec.Containers[i].Ports) > 0 {
			return &spec.Containers[i]
		}
	}
	return nil
}

func imageOf(r *servingv1.Revision) string { return imageIn(&r.Spec) }

func imageIn(spec *servingv1.RevisionSpec) string {
	if c := containerOf(spec); c != nil {
		return c.Image
	}
	return ""
}

// serverOf is the server's own image, and where its container has been told to look for networks.
func serverOf(template *servingv1.RevisionTemplateSpec) (image, base string, err error) {
	c := containerOf(&template.Spec)
	if c == nil {
		return "", "", errors.New("none of its containers has a port, so that none is the model server")
	}
	for _, v := range c.Env {
		if v.Name == modelBase {
			base = v.Value
		}
	}
	if m, ours := madeOf(template.Annotations, &template.Spec); ours {
		return m.server, base, nil
	}
	return c.Image, base, nil
}

// setVersion makes a template one of a version.
func setVersion(template *servingv1.RevisionTemplateSpec, server, image string, attempt int, c rollout.Candidate) {
	template.Name = "" // Knative's to give
	containerOf(&template.Spec).Image = image
	for key, value := range map[string]string{
		annotationVersion: strconv.FormatInt(c.Version, 10), annotationDigest: c.Digest, annotationSource: c.Source,
		annotationServer: server, annotationImage: image,
	} {
		setAnnotation(&template.ObjectMeta, key, value)
	}
	delete(template.Annotations, annotationAttempt)
	if attempt > 0 {
		setAnnotation(&template.ObjectMeta, annotationAttempt, strconv.Itoa(attempt))
	}
}

func setAnnotation(of *metav1.ObjectMeta, key, value string) {
	if of.Annotations == nil {
		of.Annotations = map[string]string{}
	}
	of.Annotations[key] = value
}

// templateOf is the template that a revision was made of.
func templateOf(r *servingv1.Revision) *servingv1.RevisionTemplateSpec {
	return &servingv1.RevisionTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: given(r.Labels), Annotations: given(r.Annotations)},
		Spec:       *r.Spec.DeepCopy(),
	}
}

// given are the labels or annotations of a revision that come from its template, without what Knative adds.
func given(all map[string]string) map[string]string {
	own := maps.Clone(all)
	maps.DeleteFunc(own, func(key, _ string) bool {
		return strings.HasPrefix(key, serving.GroupName+"/") || strings.HasPrefix(key, "client.knative.dev/")
	})
	return own
}

// sameTemplate says whether a revision was made of a template. A revision may have more labels and annotations.
func sameTemplate(template, revision *servingv1.RevisionTemplateSpec) bool {
	return contains(revision.Annotations, given(template.Annotations)) && contains(revision.Labels, given(template.Labels)) &&
		equality.Semantic.DeepEqual(template.Spec, revision.Spec)
}

// sameServer says whether a revision runs the server of a template, whatever the version in either.
func sameServer(template, revision *servingv1.RevisionTemplateSpec) bool {
	return sameTemplate(plain(template), plain(revision))
}

func contains(all, some map[string]string) bool {
	for key, value := range some {
		if all[key] != value {
			return false
		}
	}
	return true
}

// plain is a template with the server's own image, and without a version.
func plain(template *servingv1.RevisionTemplateSpec) *servingv1.RevisionTemplateSpec {
	own := template.DeepCopy()
	if m, ours := madeOf(template.Annotations, &template.Spec); ours {
		containerOf(&own.Spec).Image = m.server
	}
	for _, key := range []string{annotationVersion, annotationDigest, annotationSource, annotationServer, annotationImage, annotationAttempt} {
		delete(own.Annotations, key)
	}
	own.Name = ""
	return own
}

// unchanged says whether there is nothing to write.
func unchanged(is, wanted *servingv1.Service) bool {
	return equality.Semantic.DeepEqual(is.Spec, wanted.Spec) && maps.Equal(is.Annotations, wanted.Annotations)
}

// find finds the candidate's revision among revisions, the newest first: one of its files, and of the server that is configured.
func find(revisions []*servingv1.Revision, svc *servingv1.Service, c rollout.Candidate) *servingv1.Revision {
	for _, r := range revisions {
		if m, ours := madeOf(r.Annotations, &r.Spec); ours && m.is(c) && sameServer(&svc.Spec.Template, templateOf(r)) {
			return r
		}
	}
	return nil
}

// staged is the candidate's revision, if it is the one that the Service is being moved to.
func staged(revisions []*servingv1.Revision, svc *servingv1.Service, c rollout.Candidate) *servingv1.Revision {
	r := byName(revisions, svc.Annotations[annotationCandidate])
	if r == nil {
		return nil
	}
	if m, ours := madeOf(r.Annotations, &r.Spec); !ours || !m.is(c) {
		return nil
	}
	return r
}

// representative is, of several revisions of a version that are ready, the one to serve it: that which the traffic names, or the
// newest.
func representative(revisions []*servingv1.Revision, now traffic, known map[string]int64, version int64) *servingv1.Revision {
	named := slices.Collect(maps.Values(now.tagged))
	for _, s := range now.shares {
		named = append(named, s.revision)
	}
	var best *servingv1.Revision
	for _, r := range revisions {
		if versionOf(r, known) != version || !r.IsReady() {
			continue
		}
		if slices.Contains(named, r.Name) {
			return r
		}
		if best == nil {
			best = r
		}
	}
	return best
}

func byName(revisions []*servingv1.Revision, name string) *servingv1.Revision {
	for _, r := range revisions {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// generation counts the templates of a Service.
func generation(r *servingv1.Revision) int64 {
	n, _ := strconv.ParseInt(r.Labels[serving.ConfigurationGenerationLabelKey], 10, 64) // Knative's own number
	return n
}

// versionOf is the version that a revision serves, 0 when nobody knows.
func versionOf(r *servingv1.Revision, known map[string]int64) int64 {
	if m, ours := madeOf(r.Annotations, &r.Spec); ours {
		return m.version
	}
	return known[r.Name]
}

// readAsked reads what is known of revisions that were not made here. What cannot be read is asked again.
func readAsked(svc *servingv1.Service) map[string]int64 {
	known := map[string]int64{}
	if err := json.Unmarshal([]byte(svc.Annotations[annotationAsked]), &known); err != nil {
		return map[string]int64{}
	}
	return known
}

func writeAsked(svc *servingv1.Service, known map[string]int64) {
	text, err := json.Marshal(known)
	if err != nil { // of numbers by names
		panic(err)
	}
	setAnnotation(&svc.ObjectMeta, annotationAsked, string(text))
}

// forget forgets what is known of revisions that are gone.
func forget(svc *servingv1.Service, revisions []*servingv1.Revision) {
	known := readAsked(svc)
	before := len(known)
	maps.DeleteFunc(known, func(name string, _ int64) bool { return byName(revisions, name) == nil })
	if len(known) < before {
		writeAsked(svc, known)
	}
}

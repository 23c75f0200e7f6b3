package knative_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"knative.dev/pkg/apis"
	duckv1 "knative.dev/pkg/apis/duck/v1"
	servingapi "knative.dev/serving/pkg/apis/serving"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"
	servingfake "knative.dev/serving/pkg/client/clientset/versioned/fake"

	"github.com/ebb-inference/ebb/functions/modelsync/knative"
	"github.com/ebb-inference/ebb/functions/modelsync/rollout"
	"github.com/ebb-inference/ebb/models/tfserving/serving"
	"github.com/ebb-inference/ebb/models/tfserving/tensorflow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	namespace = "ebb"
	service   = "inception-v3"
	network   = "inception_v3"
	server    = "registry/modelserver@sha256:5e"
)

// behaviour is what becomes of a revision.
type behaviour func(r *servingv1.Revision, pod *corev1.Pod, s *modelServer)

// addresses counts those of the loopback network that are taken.
var addresses atomic.Uint32

// loopback is an address that nobody else has.
func loopback() string {
	n := addresses.Add(1)
	return net.IPv4(127, byte(1+n>>16), byte(n>>8), byte(n)).String()
}

// cluster is Knative's client, and what its controllers would make of each change, at once. Each revision has a pod with a model
// server that listens.
type cluster struct {
	serving *servingfake.Clientset
	kube    *kubefake.Clientset
	t       *testing.T
	port    int

	mu       sync.Mutex
	behave   map[int64]behaviour // by version
	servers  map[string]*modelServer
	images   map[string]int64 // versions in them
	removed  []string
	history  []*servingv1.Service // as it was after each update
	writes   int
	killAt   int  // the write with that number, counted from 1, is the last of the process
	killLate bool // it is done nevertheless
	dead     bool // nothing that the process does comes to anything
	conflict int  // so many updates come too late
}

var quiet = slog.New(slog.DiscardHandler)

var errKilled = errors.New("killed")

// newCluster has a Service whose image brings version 1 of the network.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		serving: servingfake.NewSimpleClientset(), kube: kubefake.NewClientset(), t: t,
		behave: map[int64]behaviour{}, servers: map[string]*modelServer{}, images: map[string]int64{server: 1},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.port = ln.Addr().(*net.TCPAddr).Port
	require.NoError(t, ln.Close())
	c.serving.PrependReactor("update", "services", c.onUpdate)
	c.serving.PrependReactor("delete", "revisions", c.onDelete)
	latest, percent := true, int64(100)
	svc := &servingv1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: service, Namespace: namespace, Generation: 1},
		Spec: servingv1.ServiceSpec{
			ConfigurationSpec: servingv1.ConfigurationSpec{Template: servingv1.RevisionTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"autoscaling.knative.dev/max-scale": "10"}},
				Spec: servingv1.RevisionSpec{PodSpec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "modelserver", Image: server, Ports: []corev1.ContainerPort{{ContainerPort: int32(c.port)}},
				}}}},
			}},
			RouteSpec: servingv1.RouteSpec{Traffic: []servingv1.TrafficTarget{{LatestRevision: &latest, Percent: &percent}}},
		},
	}
	c.reconcile(svc, true)
	require.NoError(t, c.serving.Tracker().Add(svc))
	return c
}

// target is that of a new process.
func (c *cluster) target() *knative.Target {
	return knative.New(knative.Config{
		Serving: c.serving, Kubernetes: c.kube, Namespace: namespace, Service: service, Network: network, Builder: builder{c},
		ReadyTimeout: time.Minute, Interval: 10 * time.Millisecond, Logger: quiet,
	})
}

// hurried is a target that soon loses its patience.
func (c *cluster) hurried() *knative.Target {
	return knative.New(knative.Config{
		Serving: c.serving, Kubernetes: c.kube, Namespace: namespace, Service: service, Network: network, Builder: builder{c},
		ReadyTimeout: 2 * time.Second, RouteTimeout: 2 * time.Second, Interval: 10 * time.Millisecond, Logger: quiet,
	})
}

// write does what a process writes, unless it is killed.
func (c *cluster) write(do func() error) error {
	if c.dead {
		return errKilled
	}
	c.writes++
	c.dead = c.killAt == c.writes
	if c.dead && !c.killLate {
		return errKilled
	}
	if err := do(); err != nil {
		return err
	}
	if c.dead {
		return errKilled
	}
	return nil
}

// died says whether the process did; then there is another one.
func (c *cluster) died() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	died := c.dead
	c.dead = false
	return died
}

func (c *cluster) onUpdate(action clienttesting.Action) (bool, runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	svc := action.(clienttesting.UpdateAction).GetObject().(*servingv1.Service).DeepCopy()
	err := c.write(func() error {
		if c.conflict > 0 {
			c.conflict--
			return apierrors.NewConflict(servingv1.Resource("services"), svc.Name, errors.New("changed meanwhile"))
		}
		stored, err := c.serving.Tracker().Get(servingv1.SchemeGroupVersion.WithResource("services"), namespace, svc.Name)
		if err != nil {
			return err
		}
		was := stored.(*servingv1.Service)
		if !equality.Semantic.DeepEqual(was.Spec, svc.Spec) {
			svc.Generation++
		}
		c.reconcile(svc, !equality.Semantic.DeepEqual(was.Spec.Template, svc.Spec.Template))
		c.history = append(c.history, svc.DeepCopy())
		return c.serving.Tracker().Update(servingv1.SchemeGroupVersion.WithResource("services"), svc, namespace)
	})
	return true, svc, err
}

func (c *cluster) onDelete(action clienttesting.Action) (bool, runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := action.(clienttesting.DeleteAction).GetName()
	return true, nil, c.write(func() error {
		return c.serving.Tracker().Delete(servingv1.SchemeGroupVersion.WithResource("revisions"), namespace, name)
	})
}

// reconcile is what Knative's controllers do.
func (c *cluster) reconcile(svc *servingv1.Service, newTemplate bool) {
	if newTemplate {
		r := c.revision(svc)
		svc.Status.LatestCreatedRevisionName = r.Name
		if r.IsReady() {
			svc.Status.LatestReadyRevisionName = r.Name
		}
	}
	svc.Status.ObservedGeneration = svc.Generation
	svc.Status.Traffic = nil
	for _, target := range svc.Spec.Traffic {
		if target.RevisionName == "" {
			target.RevisionName = svc.Status.LatestReadyRevisionName
		}
		if target.RevisionName == "" {
			continue
		}
		if target.Tag != "" {
			target.URL = c.url(target.RevisionName)
		}
		svc.Status.Traffic = append(svc.Status.Traffic, target)
	}
	svc.Status.Conditions = duckv1.Conditions{{Type: servingv1.ServiceConditionRoutesReady, Status: corev1.ConditionTrue}}
	if len(svc.Status.Traffic) > 0 {
		svc.Status.Address = &duckv1.Addressable{URL: c.url(svc.Status.Traffic[0].RevisionName)}
	}
}

// url is where the server of a revision listens.
func (c *cluster) url(revision string) *apis.URL {
	if s := c.servers[revision]; s != nil {
		return &apis.URL{Scheme: "http", Host: net.JoinHostPort(s.ip, strconv.Itoa(c.port))}
	}
	return nil
}

// revision makes the revision of a Service's template, and its pod.
func (c *cluster) revision(svc *servingv1.Service) *servingv1.Revision {
	name := fmt.Sprintf("%s-%05d", svc.Name, svc.Generation)
	r := &servingv1.Revision{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace, Annotations: maps.Clone(svc.Spec.Template.Annotations),
			Labels: map[string]string{servingapi.ServiceLabelKey: svc.Name, servingapi.ConfigurationGenerationLabelKey: strconv.FormatInt(svc.Generation, 10)},
		},
		Spec: *svc.Spec.Template.Spec.DeepCopy(),
	}
	r.Annotations["serving.knative.dev/creator"] = "somebody"
	version := c.images[r.Spec.Containers[0].Image]
	s := c.listen(version)
	c.servers[name] = s
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-pod", Namespace: namespace, Labels: map[string]string{servingapi.RevisionLabelKey: name}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: s.ip},
	}
	condition(r, corev1.ConditionTrue, "", "")
	if behave := c.behave[version]; behave != nil {
		behave(r, pod, s)
	}
	require.NoError(c.t, c.serving.Tracker().Add(r))
	if pod.Name != "" {
		require.NoError(c.t, c.kube.Tracker().Add(pod))
	}
	return r
}

func condition(r *servingv1.Revision, status corev1.ConditionStatus, reason, message string) {
	r.Status.Conditions = duckv1.Conditions{{Type: servingv1.RevisionConditionReady, Status: status, Reason: reason, Message: message}}
}

// starting is a revision that is not ready, whose pod is as change makes it.
func starting(change func(pod *corev1.Pod, s *modelServer)) behaviour {
	return func(r *servingv1.Revision, pod *corev1.Pod, s *modelServer) {
		condition(r, corev1.ConditionUnknown, "Deploying", "")
		change(pod, s)
	}
}

// containerStatus is of the server's container.
func containerStatus(pod *corev1.Pod, status corev1.ContainerStatus) {
	status.Name = "modelserver"
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
}

// modelServer answers what it serves.
type modelServer struct {
	serving.UnimplementedModelServiceServer
	ip     string
	mu     sync.Mutex
	states []*serving.ModelVersionStatus
	asked  int
}

func (s *modelServer) GetModelStatus(_ context.Context, r *serving.GetModelStatusRequest) (*serving.GetModelStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if r.GetModelSpec().GetName() != network {
		return nil, errors.New("another network")
	}
	return &serving.GetModelStatusResponse{ModelVersionStatus: s.states}, nil
}

// failed is how a server gives up a version.
func (s *modelServer) failed(version int64, message string) {
	s.states = []*serving.ModelVersionStatus{{
		Version: version, State: serving.ModelVersionStatus_END,
		Status: &serving.StatusProto{ErrorCode: tensorflow.Code_DATA_LOSS, ErrorMessage: message},
	}}
}

// listen starts a server at an address of its own: all have the port that the container names.
func (c *cluster) listen(version int64) *modelServer {
	s := &modelServer{ip: loopback()}
	s.states = []*serving.ModelVersionStatus{{Version: version, State: serving.ModelVersionStatus_AVAILABLE, Status: &serving.StatusProto{}}}
	ln, err := net.Listen("tcp", net.JoinHostPort(s.ip, strconv.Itoa(c.port)))
	require.NoError(c.t, err)
	g := grpc.NewServer()
	serving.RegisterModelServiceServer(g, s)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Serve(ln)
	}()
	c.t.Cleanup(func() {
		g.Stop()
		<-ended
	})
	return s
}

// builder makes images that are only names.
type builder struct{ *cluster }

func (b builder) Build(_ context.Context, server, base, network string, c rollout.Candidate) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	image := fmt.Sprintf("%s+%s%s/%d-%s", server, base, network, c.Version, c.Digest)
	return image, b.write(func() error {
		b.images[image] = c.Version
		return nil
	})
}

func (b builder) Remove(_ context.Context, image string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.removed = append(b.removed, image)
	return nil
}

func candidate(version int64) rollout.Candidate {
	return rollout.Candidate{Version: version, Digest: fmt.Sprintf("sha256:%d", version), Source: "oci://registry/network", Dir: "/tmp/files"}
}

// given is a candidate that was given some of the traffic.
func given(version int64, percent int) rollout.Candidate {
	c := candidate(version)
	c.Percent = percent
	return c
}

// get is the Service as it is.
func (c *cluster) get() *servingv1.Service {
	c.t.Helper()
	svc, err := c.serving.ServingV1().Services(namespace).Get(c.t.Context(), service, metav1.GetOptions{})
	require.NoError(c.t, err)
	return svc
}

// change is what somebody else does to the Service, with kubectl, ko or kn.
func (c *cluster) change(how func(svc *servingv1.Service)) {
	c.t.Helper()
	svc := c.get()
	how(svc)
	_, err := c.serving.ServingV1().Services(namespace).Update(c.t.Context(), svc, metav1.UpdateOptions{})
	require.NoError(c.t, err)
}

// apply is `ko apply` with an image: annotations stay, the container becomes another.
func (c *cluster) apply(image string, version int64) {
	c.t.Helper()
	c.images[image] = version
	c.change(func(svc *servingv1.Service) { svc.Spec.Template.Spec.Containers[0].Image = image })
}

// traffic is where the Service's traffic goes, as "00001=100 current".
func (c *cluster) traffic() []string {
	c.t.Helper()
	return trafficOf(c.get())
}

func trafficOf(svc *servingv1.Service) []string {
	var lines []string
	for _, target := range svc.Status.Traffic {
		name := strings.TrimPrefix(target.RevisionName, service+"-")
		if target.LatestRevision != nil && *target.LatestRevision {
			name = "latest"
		}
		percent := int64(0)
		if target.Percent != nil {
			percent = *target.Percent
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s=%d %s", name, percent, target.Tag)))
	}
	return lines
}

// revisions are the names of those that there are.
func (c *cluster) revisions() []string {
	c.t.Helper()
	list, err := c.serving.ServingV1().Revisions(namespace).List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	var names []string
	for _, r := range list.Items {
		names = append(names, strings.TrimPrefix(r.Name, service+"-"))
	}
	slices.Sort(names)
	return names
}

// rolledOut brings a version to where it serves.
func (c *cluster) rolledOut(version int64) {
	c.t.Helper()
	_, err := c.target().Serving(c.t.Context())
	require.NoError(c.t, err)
	c.shifted(version, 100)
}

// shifted brings a version to so many percent of the traffic, and no further.
func (c *cluster) shifted(version int64, percent int) {
	c.t.Helper()
	_, err := c.target().Stage(c.t.Context(), candidate(version))
	require.NoError(c.t, err)
	if percent > 0 {
		require.NoError(c.t, c.target().Shift(c.t.Context(), candidate(version), percent))
	}
}

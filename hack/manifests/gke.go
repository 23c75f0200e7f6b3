package manifests

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The two kinds of Google's that say how its load balancer treats a Service (networking.gke.io/v1). Google publishes a reference of
// them and no module, so that here is what of it Ebb's manifests may say, and reading strictly refuses the rest.
type (
	gkeTarget struct {
		Group string `json:"group"`
		Kind  string `json:"kind"`
		Name  string `json:"name"`
	}

	healthCheckPolicy struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			TargetRef gkeTarget `json:"targetRef"`
			Default   struct {
				Config struct {
					Type           string `json:"type"`
					TCPHealthCheck struct {
						PortSpecification string `json:"portSpecification"`
					} `json:"tcpHealthCheck"`
				} `json:"config"`
			} `json:"default"`
		} `json:"spec"`
	}

	gcpBackendPolicy struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			TargetRef gkeTarget `json:"targetRef"`
			Default   struct {
				TimeoutSec         int `json:"timeoutSec"`
				ConnectionDraining struct {
					DrainingTimeoutSec int `json:"drainingTimeoutSec"`
				} `json:"connectionDraining"`
			} `json:"default"`
		} `json:"spec"`
	}
)

func (p *healthCheckPolicy) DeepCopyObject() runtime.Object {
	c := *p
	p.DeepCopyInto(&c.ObjectMeta)
	return &c
}

func (p *gcpBackendPolicy) DeepCopyObject() runtime.Object {
	c := *p
	p.DeepCopyInto(&c.ObjectMeta)
	return &c
}

// Command secret writes the Secret "rabbitmq", by which the Broker and the functions find RabbitMQ, for kubectl to apply. So the
// password is in no command line.
//
//	RABBITMQ_URL=amqp://user:password@host:5672/ go run ./hack/secret | kubectl apply -f -
//	go run ./hack/secret -new | kubectl create -f -
//
// The second is for config/rabbitmq: a new password, for the user that RabbitMQ begins with. It is created and not applied, since
// the user of a RabbitMQ that is there keeps the password it has.
package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/rabbitmq/amqp091-go"
)

// The ports of the management API.
const (
	managementPort    = "15672"
	managementTLSPort = "15671"
)

// ours is RabbitMQ in config/rabbitmq.
const (
	oursHost = "rabbitmq.ebb.svc"
	oursUser = "ebb"
)

func main() {
	fresh := flag.Bool("new", false, "for config/rabbitmq: make a password, instead of reading RABBITMQ_URL")
	flag.Parse()
	if err := run(*fresh, os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "secret:", err)
		os.Exit(1)
	}
}

func run(fresh bool, getenv func(string) string, out io.Writer) error {
	address := getenv("RABBITMQ_URL")
	management := getenv("RABBITMQ_MANAGEMENT_URL")
	if fresh {
		address, management = fmt.Sprintf("amqp://%s:%s@%s/", oursUser, rand.Text(), net.JoinHostPort(oursHost, "5672")), ""
	}
	data, err := secret(address, management)
	if err != nil {
		return err
	}
	to := json.NewEncoder(out)
	to.SetIndent("", "  ")
	to.SetEscapeHTML(false)
	return to.Encode(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": map[string]any{
			"name": "rabbitmq", "namespace": "ebb",
			"labels": map[string]string{"app.kubernetes.io/name": "rabbitmq", "app.kubernetes.io/part-of": "ebb"},
		},
		"stringData": data,
	})
}

// secret has what the functions read (url), what Knative and the topology operator do (username, password, uri, port), and what
// the cluster operator does (default_user.conf; host, provider and type, as it makes them). No error repeats the address.
func secret(address, management string) (map[string]string, error) {
	if address == "" {
		return nil, errors.New("environment variable RABBITMQ_URL is not set; it is as amqp://user:password@host:5672/")
	}
	uri, err := amqp091.ParseURI(address)
	switch {
	case err != nil:
		return nil, errors.New("environment variable RABBITMQ_URL is no amqp or amqps URL")
	case uri.Vhost != "/":
		return nil, errors.New("environment variable RABBITMQ_URL names a virtual host; the Broker uses the default one, /")
	case url.UserPassword(uri.Username, uri.Password).String() != uri.Username+":"+uri.Password || strings.Contains(uri.Host, ":"):
		return nil, errors.New("environment variable RABBITMQ_URL: Knative writes user, password and host into a URL as they are, " +
			"so they must have nothing that is escaped there; the host must not be an IPv6 address")
	}
	scheme, port := "http", managementPort
	if uri.Scheme == "amqps" {
		scheme, port = "https", managementTLSPort
	}
	if management == "" {
		management = scheme + "://" + net.JoinHostPort(uri.Host, port)
	}
	m, err := url.Parse(management)
	if err != nil || m.Hostname() == "" {
		return nil, errors.New("environment variable RABBITMQ_MANAGEMENT_URL is no URL as http://host:15672")
	}
	// Knative takes the host for AMQP, and whether it is encrypted, from the management API's.
	if m.Hostname() != uri.Host || m.Scheme != scheme {
		return nil, fmt.Errorf("environment variable RABBITMQ_MANAGEMENT_URL has to be %s, and of the same host as RABBITMQ_URL: Knative knows only one", scheme)
	}
	return map[string]string{
		"url": address, "username": uri.Username, "password": uri.Password, "uri": scheme + "://" + m.Host, "port": strconv.Itoa(uri.Port),
		"host": uri.Host, "provider": "rabbitmq", "type": "rabbitmq",
		"default_user.conf": fmt.Sprintf("default_user = %s\ndefault_pass = %s\n", uri.Username, uri.Password),
	}, nil
}

package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func written(t *testing.T, fresh bool, env map[string]string) (map[string]string, error) {
	t.Helper()
	var out bytes.Buffer
	if err := run(fresh, func(name string) string { return env[name] }, &out); err != nil {
		require.Empty(t, out.String())
		return nil, err
	}
	var s struct {
		Kind     string
		Metadata struct{ Name, Namespace string }
		Data     map[string]string `json:"stringData"`
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &s))
	require.Equal(t, "Secret ebb/rabbitmq", s.Kind+" "+s.Metadata.Namespace+"/"+s.Metadata.Name)
	return s.Data, nil
}

func TestTheSecretHasWhatEachOfItsReadersWants(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		want map[string]string
	}{
		"plain": {
			map[string]string{"RABBITMQ_URL": "amqp://user:p_ss@host:5673/"},
			map[string]string{"url": "amqp://user:p_ss@host:5673/", "uri": "http://host:15672", "username": "user", "password": "p_ss", "port": "5673"},
		},
		"with TLS": {
			map[string]string{"RABBITMQ_URL": "amqps://user:secret@host"},
			map[string]string{"url": "amqps://user:secret@host", "uri": "https://host:15671", "port": "5671"},
		},
		"a management API elsewhere": {
			map[string]string{"RABBITMQ_URL": "amqp://u:p@host/", "RABBITMQ_MANAGEMENT_URL": "http://u:p@host:8080/"},
			map[string]string{"uri": "http://host:8080"},
		},
	} {
		got, err := written(t, false, c.env)
		require.NoError(t, err, name)
		for key, value := range c.want {
			require.Equal(t, value, got[key], "%s: %s", name, key)
		}
	}
}

func TestANewSecretIsAnotherEachTimeAndIgnoresTheEnvironment(t *testing.T) {
	t.Parallel()
	env := map[string]string{"RABBITMQ_URL": "amqp://user:secret@host/", "RABBITMQ_MANAGEMENT_URL": "x"}
	first, err := written(t, true, env)
	require.NoError(t, err)
	second, err := written(t, true, env)
	require.NoError(t, err)
	require.NotEqual(t, first["password"], second["password"])
	require.GreaterOrEqual(t, len(first["password"]), 26)
	require.Equal(t, "amqp://ebb:"+first["password"]+"@rabbitmq.ebb.svc:5672/", first["url"])
	require.Equal(t, "http://rabbitmq.ebb.svc:15672", first["uri"])
	require.Equal(t, "default_user = ebb\ndefault_pass = "+first["password"]+"\n", first["default_user.conf"])
}

func TestWhatTheBrokerCouldNotUseIsRefusedWithoutThePassword(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ url, management, want string }{
		"nothing":                  {"", "", "RABBITMQ_URL is not set"},
		"no AMQP":                  {"http://u:s3cret@host/", "", "no amqp or amqps URL"},
		"a virtual host":           {"amqp://u:s3cret@host/mine", "", "names a virtual host"},
		"a password to escape":     {"amqp://u:s3cret%40@host/", "", "nothing that is escaped"},
		"IPv6":                     {"amqp://u:s3cret@[::1]/", "", "IPv6"},
		"no management API":        {"amqp://u:s3cret@host/", "host", "RABBITMQ_MANAGEMENT_URL is no URL"},
		"another host":             {"amqp://u:s3cret@host/", "http://u:s3cret@other:15672", "of the same host"},
		"only one of them has TLS": {"amqps://u:s3cret@host/", "http://u:s3cret@host:15672", "has to be https"},
	} {
		_, err := written(t, false, map[string]string{"RABBITMQ_URL": c.url, "RABBITMQ_MANAGEMENT_URL": c.management})
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), "s3cret", name)
	}
}

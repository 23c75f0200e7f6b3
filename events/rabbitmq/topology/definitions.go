package topology

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/rabbitmq/amqp091-go"

	"github.com/ebb-inference/ebb/events/trigger"
)

// Definitions is what Declare declares, as RabbitMQ imports it when it starts (load_definitions). Its JSON is the file.
type Definitions struct {
	Users       []map[string]any `json:"users"`
	Vhosts      []map[string]any `json:"vhosts"`
	Permissions []map[string]any `json:"permissions"`
	Exchanges   []map[string]any `json:"exchanges"`
	Queues      []map[string]any `json:"queues"`
	Bindings    []map[string]any `json:"bindings"`
	Policies    []map[string]any `json:"policies"`
}

const defaultVhost = "/"

// NewDefinitions are those of b and its Triggers in the default virtual host, with a user who may do anything there: a RabbitMQ
// that imports definitions makes no user of its own.
func NewDefinitions(b Broker, triggers []trigger.Trigger, l Limits, user, password string) Definitions {
	l = l.withDefaults()
	d := Definitions{
		Users: []map[string]any{{
			"name": user, "password_hash": passwordHash(password), "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "administrator",
		}},
		Vhosts:      []map[string]any{{"name": defaultVhost}},
		Permissions: []map[string]any{{"user": user, "vhost": defaultVhost, "configure": ".*", "write": ".*", "read": ".*"}},
	}
	d.exchange(b.Exchange())
	for _, t := range triggers {
		names := b.Trigger(t)
		d.exchange(names.DeadLetterExchange)
		d.queue(names.DeadLetterQueue)
		d.queue(names.Queue)
		d.bind(names.DeadLetterExchange, names.DeadLetterQueue, amqp091.Table{argMatch: "all"})
		d.bind(b.Exchange(), names.Queue, filter(t))
		d.policy(names.deadLetterPolicy())
		d.policy(names.limitPolicy(l))
	}
	return d
}

func (d *Definitions) exchange(name string) {
	d.Exchanges = append(d.Exchanges, map[string]any{
		"name": name, "vhost": defaultVhost, "type": amqp091.ExchangeHeaders, "durable": durable, "auto_delete": autoDelete,
		"internal": internal, "arguments": map[string]any{},
	})
}

func (d *Definitions) queue(name string) {
	d.Queues = append(d.Queues, map[string]any{
		"name": name, "vhost": defaultVhost, "durable": durable, "auto_delete": autoDelete,
		"arguments": map[string]any{amqp091.QueueTypeArg: amqp091.QueueTypeQuorum},
	})
}

func (d *Definitions) bind(exchange, queue string, arguments amqp091.Table) {
	d.Bindings = append(d.Bindings, map[string]any{
		"source": exchange, "vhost": defaultVhost, "destination": queue, "destination_type": "queue", "routing_key": "",
		"arguments": arguments,
	})
}

func (d *Definitions) policy(p policy) {
	d.Policies = append(d.Policies, map[string]any{
		"name": p.name, "vhost": defaultVhost, "pattern": p.Pattern, "priority": p.Priority, "apply-to": p.ApplyTo, "definition": p.Definition,
	})
}

// passwordHash is RabbitMQ's, with a salt that follows from the password, so that the same definitions are the same file.
func passwordHash(password string) string {
	const saltBytes = 4
	of := sha256.Sum256([]byte("ebb " + password))
	salt := of[:saltBytes]
	sum := sha256.Sum256(append(append([]byte{}, salt...), password...))
	return base64.StdEncoding.EncodeToString(append(append([]byte{}, salt...), sum[:]...))
}

// Package app is what every function shares around its work: configuration from the environment, logger, signals,
// telemetry, HTTP servers that drain. It knows nothing of pictures, events or models.
package app

package system

import (
	"github.com/sethvargo/go-envconfig"

	"github.com/ebb-inference/ebb/functions/internal/app"
)

// CollectSeldom has this process collect garbage as seldom as every function does, unless GOGC is set: who starts a System to
// measure it has to measure what people run.
func CollectSeldom() { app.CollectSeldom(envconfig.OsLookuper()) }

#pragma once
/// The parameters of a bottleneck adapter, of encoders and decoders alike.

#include <cstdint>
#include <string>
#include <vector>

#include "core/rng.h"
#include "tune/encoder_functions.h"
#include "tune/parameters.h"
#include "tune/settings.h"
#include "tune/slot_bindings.h"

namespace tailor::tune {

/// Adds `name` + ".down.weight" [size, width], ".down.bias" [size], ".up.weight" [width, size] and ".up.bias" [width],
/// close to the identity, and says which slots of `spec` they fill. Returns their names. Throws kInvalidArgument where
/// the bottleneck is wider than the model.
std::vector<std::string> add_bottleneck_parameters(BottleneckSpec& spec, const std::string& name, std::int64_t width,
                                                   AdapterPlace place, const AdapterSettings& settings,
                                                   ParameterSet& parameters, SlotBindings& bindings, Rng& rng);

}  // namespace tailor::tune

#include "fit/quantized_package.h"

#include <fmt/format.h>

#include "fit/package.h"
#include "model/requantize.h"

namespace tailor {

namespace fs = std::filesystem;

Status quantize_package(const fs::path& package, std::string_view type, int threads) {
  const auto wanted = quant_type(type);
  if (!wanted) return Error{ErrorCode::kInvalidArgument, fmt::format("there is no type '{}' of weights", type), ""};
  TAILOR_TRY(PackageManifest manifest, read_package(package));
  const fs::path model = base_model_path(package, manifest.base);
  if (manifest.base.id.empty() || model.parent_path() != package) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: the package holds no model that could be quantized", package.string()), ""};
  }
  TAILOR_CHECK(requantize(model, model, *wanted, threads));
  manifest.base.sha256.clear();  // closing computes it
  manifest.base.source += fmt::format(", quantized to {}", type);
  return close_package(package, std::move(manifest), /*include_base_model=*/true);
}

}  // namespace tailor

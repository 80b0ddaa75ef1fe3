#include "serve/model_admin.h"

#include <fmt/format.h>

#include <algorithm>

#include "fit/paths.h"
#include "model/catalogue.h"
#include "serve/stored_package.h"
#include "store/names.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

Error busy() {
  return {ErrorCode::kUnavailable, "another model is being loaded", "try again when it is there"};
}

Error no_store() {
  return {ErrorCode::kInvalidArgument, "this server has no store", "start it with --data DIR"};
}

/// A link in a directory, or so many entries that it is no adapter's.
bool has_links(const fs::path& directory) {
  constexpr int kMostEntries = 1000;
  std::error_code failed;
  int entries = 0;
  for (fs::recursive_directory_iterator at(directory, failed), end; !failed && at != end; at.increment(failed)) {
    if (++entries > kMostEntries || at->is_symlink(failed)) return true;
  }
  return static_cast<bool>(failed);
}

}  // namespace

Error ModelAdmin::told(const std::string& name, Error error) const {
  log_.warning(fmt::format("the model {} was not loaded: {}", name, to_string(error)));
  return error;
}

Result<ServedModelPtr> ModelAdmin::load_stored(const std::string& reference, const std::string& id,
                                               const BeforeChange& before) {
  if (store_ == nullptr) return no_store();
  const std::unique_lock loading(loading_, std::try_to_lock);
  if (!loading) return busy();
  return put_stored(reference, id, false, before);
}

Result<ServedModelPtr> ModelAdmin::put(std::unique_ptr<ServedModel> model, const BeforeChange& before) {
  const std::lock_guard lock(mutex_);
  if (before) TAILOR_CHECK(before(model->id));
  following_.erase(model->id);
  return models_.put(std::move(model));
}

Result<ServedModelPtr> ModelAdmin::put_stored(const std::string& reference, const std::string& id, bool followed,
                                              const BeforeChange& before) {
  const ModelRegistry::Loading shown(models_);
  TAILOR_TRY(const PackageRecord record, stored_package(*store_, reference));
  const std::string name = id.empty() ? record.name : id;
  TAILOR_CHECK(check_name(name, "model name"));
  auto model = serve_package(record.path, name, options_);
  if (!model) return told(name, model.error());
  (*model)->meta["version"] = record.version;
  if (reference.find('@') != std::string::npos) return put(std::move(*model), before);
  const std::lock_guard lock(mutex_);
  if (followed && !following_.contains(name))  // while it was loaded
    return Error{ErrorCode::kNotFound, fmt::format("the model '{}' was removed or replaced", name), ""};
  if (before) TAILOR_CHECK(before(name));
  following_.insert_or_assign(name, record);
  return models_.put(std::move(*model));
}

Result<ServedModelPtr> ModelAdmin::load_base(const std::string& name, const std::string& id,
                                             const BeforeChange& before) {
  const auto known = list_models(default_models_directory());
  if (std::none_of(known.begin(), known.end(), [&](const ModelInfo& m) { return m.id == name; }))
    return Error{ErrorCode::kNotFound,
                 fmt::format("there is no base model {} in the models' directory of this server", name), ""};
  if (!id.empty()) TAILOR_CHECK(check_name(id, "model name"));
  const std::unique_lock loading(loading_, std::try_to_lock);
  if (!loading) return busy();
  const ModelRegistry::Loading shown(models_);
  auto model = serve_base_model(name, id, options_);
  if (!model) return told(name, model.error());
  return put(std::move(*model), before);
}

Result<ServedModelPtr> ModelAdmin::put_adapter(const fs::path& path, const std::string& parent, const std::string& id,
                                               const BeforeChange& before) {
  TAILOR_CHECK(check_name(id, "model name"));
  const ServedModelPtr base = models_.find(parent);
  if (!base)
    return Error{ErrorCode::kNotFound, fmt::format("there is no model {} for the adapter to stand on", parent), ""};
  const std::unique_lock loading(loading_, std::try_to_lock);
  if (!loading) return busy();
  const ModelRegistry::Loading shown(models_);
  auto model = serve_adapter(*base, path, id);
  if (!model) return told(id, model.error());
  return put(std::move(*model), before);
}

Result<ServedModelPtr> ModelAdmin::load_stored_adapter(const std::string& reference, const std::string& parent,
                                                       const std::string& id, const BeforeChange& before) {
  if (store_ == nullptr) return no_store();
  TAILOR_TRY(const PackageRecord record, stored_package(*store_, reference));
  return put_adapter(record.path, parent, id.empty() ? record.name : id, before);
}

Result<ServedModelPtr> ModelAdmin::load_adapter(const fs::path& path, const std::string& parent, const std::string& id,
                                                const BeforeChange& before) {
  if (!takes_adapters())
    return Error{ErrorCode::kInvalidArgument, "this server loads no adapters by path",
                 "start it with adapters_root in its serve.yaml"};
  std::error_code failed;
  const fs::path root = fs::canonical(adapters_root_, failed);
  const fs::path whole = failed ? fs::path() : fs::canonical(path.is_absolute() ? path : root / path, failed);
  // One answer for what is outside and what is not there: it says nothing about this machine's files.
  const auto [end, ignored] = std::mismatch(root.begin(), root.end(), whole.begin(), whole.end());
  if (failed || end != root.end() || whole == root || (fs::is_directory(whole, failed) && has_links(whole)))
    return Error{ErrorCode::kNotFound, "there is no such adapter under the directory of adapters", ""};
  return put_adapter(whole, parent, id, before);
}

Status ModelAdmin::remove(const std::string& id, const BeforeChange& before) {
  const Error unknown{ErrorCode::kNotFound, fmt::format("the model '{}' does not exist", id.substr(0, 128)), ""};
  const std::lock_guard lock(mutex_);
  if (id.empty() || !models_.find(id)) return unknown;
  if (before) TAILOR_CHECK(before(id));
  following_.erase(id);
  if (!models_.remove(id)) return unknown;
  return {};
}

bool ModelAdmin::follow_production(const CancelToken& stop) {
  if (store_ == nullptr) return true;
  const std::unique_lock loading(loading_, std::try_to_lock);
  if (!loading) return false;
  std::map<std::string, PackageRecord> following;
  {
    const std::lock_guard lock(mutex_);
    following = following_;
  }
  for (const auto& [id, served] : following) {
    if (stop.cancelled()) break;
    const auto record = store_->packages().promoted(served.name);
    if (record && *record && (*record)->version == served.version) continue;
    const auto loaded = put_stored(served.name, id, true, {});
    if (loaded)
      log_.info(fmt::format("{} is version {} now", id, (*loaded)->meta.value("version", "")));
    else
      log_.warning(fmt::format("{} stays at version {}: {}", id, served.version, to_string(loaded.error())));
  }
  return true;
}

}  // namespace tailor

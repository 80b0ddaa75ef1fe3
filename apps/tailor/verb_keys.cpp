/// `tailor keys`: who may ask a server, for what, how much of it.

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "apps/tailor/arguments.h"
#include "apps/tailor/store_options.h"
#include "apps/tailor/verbs.h"

namespace tailor {
namespace {

struct KeyWords {
  std::string data, name, id, scope = "infer", expires;
  QuotaLimits quotas;
  bool json = false;
};

std::int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string state_of(const ApiKey& key) {
  if (key.revoked_at) return "revoked";
  return key.expires_at && *key.expires_at <= unix_now() ? "expired" : "active";
}

Json to_json(const ApiKey& key) {
  const auto or_null = [](const std::optional<std::int64_t>& at) { return at ? Json(*at) : Json(nullptr); };
  return {{"id", key.id},
          {"name", key.name},
          {"state", state_of(key)},
          {"scopes", to_string(key.scopes)},
          {"requests_per_minute", key.quotas.requests_per_minute},
          {"tokens_per_minute", key.quotas.tokens_per_minute},
          {"tokens_per_day", key.quotas.tokens_per_day},
          {"max_concurrent", key.quotas.max_concurrent},
          {"created_at", key.created_at},
          {"expires_at", or_null(key.expires_at)},
          {"revoked_at", or_null(key.revoked_at)},
          {"last_used_at", or_null(key.last_used_at)}};
}

std::string quotas_text(const QuotaLimits& quotas) {
  std::string out;
  const auto add = [&](std::int64_t limit, std::string_view unit) {
    if (limit > 0) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", limit, unit);
  };
  add(quotas.requests_per_minute, "requests/min");
  add(quotas.tokens_per_minute, "tokens/min");
  add(quotas.tokens_per_day, "tokens/day");
  add(quotas.max_concurrent, "at a time");
  return out.empty() ? "none" : out;
}

Result<int> create(const KeyWords& words) {
  NewApiKey wanted{.name = words.name, .quotas = words.quotas};
  TAILOR_TRY(wanted.scopes, parse_scopes(words.scope));
  if (!words.expires.empty()) {
    TAILOR_TRY(const double seconds, parse_duration(words.expires));
    if (seconds > 3e9)
      return Error{ErrorCode::kInvalidArgument, fmt::format("--expires {} is more than 95 years away", words.expires),
                   "leave it out for a key without end"};
    wanted.expires_at = unix_now() + static_cast<std::int64_t>(seconds);
  }
  TAILOR_TRY(const auto store, open_store(words.data, false));
  TAILOR_TRY(const CreatedApiKey created, store->keys().create(wanted, kCommandLine));
  const ApiKey& key = created.key;
  if (words.json) {
    Json out = to_json(key);
    out["secret"] = created.secret;
    fmt::print("{}\n", dump_json(out, 2));
  } else {
    fmt::print(stderr, "key {} \"{}\": {}; limits: {}; {}. Its secret is shown this once:\n", key.id, key.name,
               to_string(key.scopes), quotas_text(key.quotas),
               key.expires_at ? "until " + utc(key.expires_at) : "without end");
    fmt::print("{}\n", created.secret);
  }
  std::fflush(stdout);
  return 0;
}

Result<int> list(const KeyWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_TRY(const auto keys, store->keys().list());
  if (words.json) {
    Json all = Json::array();
    for (const ApiKey& key : keys) all.push_back(to_json(key));
    fmt::print("{}\n", dump_json(all, 2));
    return 0;
  }
  if (keys.empty()) {
    fmt::print("there are no keys; `tailor keys create --name NAME` makes one\n");
    return 0;
  }
  fmt::print("{:<20} {:<8} {:<20} {:<22} {:<22} {:<34} {}\n", "id", "state", "scopes", "expires", "last used", "limits",
             "name");
  for (const ApiKey& key : keys) {
    fmt::print("{:<20} {:<8} {:<20} {:<22} {:<22} {:<34} {}\n", key.id, state_of(key), to_string(key.scopes),
               utc(key.expires_at), utc(key.last_used_at), quotas_text(key.quotas), key.name);
  }
  return 0;
}

Result<int> show(const KeyWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_TRY(const ApiKey key, store->keys().find(words.id));
  if (words.json) {
    fmt::print("{}\n", dump_json(to_json(key), 2));
    return 0;
  }
  fmt::print(
      "id         {}\nname       {}\nstate      {}\nscopes     {}\nlimits     {}\ncreated    {}\nexpires    "
      "{}\nrevoked    {}\nlast used  {}\n",
      key.id, key.name, state_of(key), to_string(key.scopes), quotas_text(key.quotas), utc(key.created_at),
      utc(key.expires_at), utc(key.revoked_at), utc(key.last_used_at));
  return 0;
}

Result<int> revoke(const KeyWords& words) {
  TAILOR_TRY(const auto store, open_store(words.data, true));
  TAILOR_CHECK(store->keys().revoke(words.id, kCommandLine));
  fmt::print("key {} is revoked; a running server ends what it answers under it within a second\n", words.id);
  return 0;
}

}  // namespace

void add_keys(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("keys", "API keys of `tailor serve`: make, list, revoke");
  verb->require_subcommand(1);
  verb->footer(
      "Examples:  tailor keys create --name app --requests-per-minute 60 > app.key\n"
      "           tailor keys create --name prometheus --scope metrics --expires 90d\n"
      "           tailor keys revoke key_…");
  auto words = std::make_shared<KeyWords>();
  KeyWords& w = *words;
  const auto add = [&](const char* name, const char* what, Result<int> (*run)(const KeyWords&)) {
    auto* sub = verb->add_subcommand(name, what);
    add_data_option(*sub, w.data);
    sub->callback([&invocation, words, run] { invocation.run = [words, run] { return run(*words); }; });
    return sub;
  };
  auto* create_verb = add("create", "a new key; its secret is printed once, to standard output", create);
  create_verb->add_option("--name", w.name, "what it is for")->required()->type_name("NAME");
  create_verb->add_option("--scope", w.scope, "one or more of infer, admin, metrics")
      ->capture_default_str()
      ->type_name("LIST");
  create_verb->add_option("--expires", w.expires, "after this time, such as 12h or 30d (never)")->type_name("TIME");
  const auto limit = [&](const char* flag, std::int64_t& value, const char* what) {
    create_verb->add_option(flag, value, what)->check(CLI::PositiveNumber.description(""))->type_name("N");
  };
  limit("--requests-per-minute", w.quotas.requests_per_minute, "requests (no limit)");
  limit("--tokens-per-minute", w.quotas.tokens_per_minute, "tokens of prompts and answers (no limit)");
  limit("--tokens-per-day", w.quotas.tokens_per_day, "the same in a day of UTC (no limit)");
  limit("--max-concurrent", w.quotas.max_concurrent, "requests under way at a time (no limit)");
  create_verb->add_flag("--json", w.json, "all of it as JSON, the secret too");
  add("list", "all keys, without their secrets", list)->add_flag("--json", w.json, "as JSON");
  for (auto* sub : {add("show", "one key", show), add("revoke", "ends a key for good", revoke)}) {
    sub->add_option("id", w.id, "as `tailor keys list` shows it")->required()->type_name("ID");
    if (sub->get_name() == "show") sub->add_flag("--json", w.json, "as JSON");
  }
}

}  // namespace tailor

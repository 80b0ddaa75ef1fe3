#include "store/key_store.h"

#include <fstream>
#include <set>
#include <thread>

#include "store/store_testing.h"

namespace tailor {
namespace {

constexpr std::int64_t kNow = 1'700'000'000;

TEST(KeyStore, TheSecretIsShownOnceAndStoredNowhere) {
  TestStore store;
  const CreatedApiKey created = store->keys().create({.name = "Käthe's laptop"}).value();
  EXPECT_EQ(created.secret.substr(0, 4), "tlr-");
  EXPECT_EQ(created.secret.size(), 47U);
  const std::filesystem::path root = store->directory().root();
  store.store.reset();
  for (const auto& file : std::filesystem::recursive_directory_iterator(root)) {
    if (!file.is_regular_file()) continue;
    EXPECT_EQ(read_file(file.path()).value().find(created.secret.substr(4)), std::string::npos) << file.path();
  }
  store.open();
  const auto key = store->keys().authenticate(created.secret, kNow);
  ASSERT_TRUE(key);
  EXPECT_EQ(key->id, created.key.id);
  EXPECT_EQ(key->name, "Käthe's laptop");
  EXPECT_TRUE(key->scopes.has(Scope::kInfer));
  EXPECT_FALSE(key->scopes.has(Scope::kAdmin));
  EXPECT_EQ(key->cache_salt, created.key.cache_salt);
}

TEST(KeyStore, KeepsScopesQuotasAndTimes) {
  TestStore store;
  const QuotaLimits quotas{.requests_per_minute = 1, .tokens_per_minute = 2, .tokens_per_day = 3, .max_concurrent = 4};
  const CreatedApiKey created =
      store->keys()
          .create({.name = "ops", .scopes = {Scope::kAdmin, Scope::kMetrics}, .quotas = quotas, .expires_at = kNow + 5})
          .value();
  store.open();
  const ApiKey found = store->keys().find(created.key.id).value();
  EXPECT_EQ(found.quotas, quotas);
  EXPECT_EQ(to_string(found.scopes), "admin,metrics");
  EXPECT_EQ(found.created_at, kNow);
  EXPECT_EQ(found.expires_at, kNow + 5);
  EXPECT_TRUE(store->keys().authenticate(created.secret, kNow + 4));
  EXPECT_FALSE(store->keys().authenticate(created.secret, kNow + 5));
  store->keys().set_quotas(created.key.id, {.requests_per_minute = 9}).value();
  EXPECT_EQ(store->keys().authenticate(created.secret, kNow)->quotas.requests_per_minute, 9);
}

TEST(KeyStore, ARevokedKeyIsUnknownAtOnce) {
  TestStore store;
  const CreatedApiKey created = store->keys().create({.name = "a"}).value();
  const auto held = store->keys().authenticate(created.secret, kNow);
  store->keys().revoke(created.key.id).value();
  EXPECT_FALSE(store->keys().authenticate(created.secret, kNow));
  EXPECT_EQ(held->name, "a") << "a request that is running keeps its key";
  store.now += 10;
  store->keys().revoke(created.key.id).value();
  EXPECT_EQ(store->keys().find(created.key.id).value().revoked_at, kNow) << "the first time counts";
  EXPECT_EQ(store->keys().list().value().size(), 1U);
  EXPECT_EQ(store->keys().revoke("key_none").error().code, ErrorCode::kNotFound);
}

TEST(KeyStore, WhatWasDoneStandsInTheAuditLog) {
  const TestStore store;
  const CreatedApiKey created =
      store->keys().create({.name = "app", .scopes = {Scope::kMetrics}, .expires_at = kNow + 5}, "key_a").value();
  store->keys().revoke(created.key.id).value();
  store->keys().revoke(created.key.id).value();
  EXPECT_FALSE(store->keys().create({.name = "late", .expires_at = kNow}));
  const auto entries = store->audit().entries(0, 10).value();
  ASSERT_EQ(entries.size(), 2U) << "of what was done alone";
  EXPECT_EQ(entries[0].entry.action, "key.create");
  EXPECT_EQ(entries[0].entry.actor, "key_a");
  EXPECT_EQ(entries[0].entry.object, created.key.id);
  EXPECT_EQ(entries[0].entry.details, Json({{"expires_at", kNow + 5}, {"name", "app"}, {"scopes", "metrics"}}));
  EXPECT_EQ(entries[1].entry.action, "key.revoke");
  EXPECT_EQ(entries[1].entry.actor, kCommandLine);
  EXPECT_EQ(entries[1].entry.object, created.key.id);
}

TEST(KeyStore, AKeyAndItsAuditEntryAreThereTogether) {
  const TestStore store;
  const CreatedApiKey created = store->keys().create({.name = "first"}).value();
  close_audit(*store.store);
  EXPECT_FALSE(store->keys().create({.name = "second"}));
  EXPECT_FALSE(store->keys().revoke(created.key.id));
  const auto keys = store->keys().list().value();
  ASSERT_EQ(keys.size(), 1U);
  EXPECT_EQ(keys[0].revoked_at, std::nullopt);
  EXPECT_TRUE(store->keys().authenticate(created.secret, kNow));
}

TEST(KeyStore, RefusesWrongWishes) {
  const TestStore store;
  EXPECT_FALSE(store->keys().create({.name = ""}));
  EXPECT_FALSE(store->keys().create({.name = "a\nb"}));
  EXPECT_FALSE(store->keys().create({.name = "a", .scopes = {}}));
  EXPECT_FALSE(store->keys().create({.name = "a", .quotas = {.tokens_per_day = -1}}));
  EXPECT_FALSE(store->keys().create({.name = "a", .expires_at = kNow}));
  EXPECT_TRUE(store->keys().list().value().empty());
}

TEST(KeyStore, UnknownSecretsFindNothing) {
  const TestStore store;
  const CreatedApiKey created = store->keys().create({.name = "a"}).value();
  for (const std::string& secret : {std::string(), created.secret.substr(0, 46), created.secret + "x",
                                    std::string(1 << 20, 'x'), hash_secret(created.secret)})
    EXPECT_FALSE(store->keys().authenticate(secret, kNow));
}

TEST(KeyStore, ReadsKeysThatAnotherProcessMade) {
  std::filesystem::path root;
  const TemporaryDirectory dir;
  root = dir.path() / "store";
  Child child([&](Child& parent) {
    parent.hear();
    const auto store = Store::open(root).value();
    const CreatedApiKey created = store->keys().create({.name = "from outside"}).value();
    parent.say(created.secret);
    parent.hear();
    store->keys().revoke(created.key.id).value();
    parent.say("revoked");
    parent.hear();
  });
  const auto store = Store::open(root).value();
  child.say("go");
  const std::string secret = child.hear().value();
  EXPECT_FALSE(store->keys().authenticate(secret, kNow));
  EXPECT_TRUE(store->keys().refresh().value());
  EXPECT_TRUE(store->keys().authenticate(secret, kNow));
  EXPECT_FALSE(store->keys().refresh().value());
  child.say("revoke");
  ASSERT_EQ(child.hear(), "revoked");
  EXPECT_TRUE(store->keys().refresh().value());
  EXPECT_FALSE(store->keys().authenticate(secret, kNow));
}

TEST(KeyStore, LastUseIsWrittenByTheMinute) {
  const TestStore store;
  const CreatedApiKey created = store->keys().create({.name = "a"}).value();
  const auto used_at = [&](std::int64_t now) {
    store->keys().authenticate(created.secret, now);
    store->keys().flush_last_used().value();
    return store->keys().find(created.key.id).value().last_used_at;
  };
  EXPECT_EQ(store->keys().find(created.key.id).value().last_used_at, std::nullopt);
  EXPECT_EQ(used_at(kNow), kNow);
  EXPECT_EQ(used_at(kNow + 59), kNow);
  EXPECT_EQ(used_at(kNow + 60), kNow + 60);
}

TEST(KeyStore, SaltsDifferByKeyAndByStore) {
  const TestStore one, two;
  std::set<std::string> salts;
  for (int i = 0; i < 3; ++i) {
    salts.insert(one->keys().create({.name = "a"}).value().key.cache_salt);
    salts.insert(two->keys().create({.name = "a"}).value().key.cache_salt);
  }
  EXPECT_EQ(salts.size(), 6U);
  EXPECT_EQ(salts.begin()->size(), 64U);
  // RFC 4231, test case 2.
  EXPECT_EQ(derive_cache_salt("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(KeyStore, FixedKeysStandBesideThoseOfTheStore) {
  TestStore store;
  const CreatedApiKey created = store->keys().create({.name = "a"}).value();
  const std::string secret = "from-the-environment-1234";
  store->keys().set_fixed({AuthEntry::from_secret({.id = "env"}, secret).value()}).value();
  ASSERT_TRUE(store->keys().authenticate(secret, kNow));
  EXPECT_EQ(store->keys().authenticate(secret, kNow)->cache_salt.size(), 64U);
  EXPECT_TRUE(store->keys().authenticate(created.secret, kNow));
  store->keys().create({.name = "b"}).value();
  EXPECT_TRUE(store->keys().authenticate(secret, kNow)) << "they survive a reload";
  const AuthEntry same = AuthEntry::from_secret({.id = "other"}, created.secret).value();
  EXPECT_EQ(store->keys().set_fixed({same}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(store->keys().authenticate(secret, kNow)) << "an error changes nothing";
}

TEST(KeyStore, ThreadsLookUpWhileKeysChange) {
  const TestStore store;
  const CreatedApiKey kept = store->keys().create({.name = "kept"}).value();
  std::vector<std::thread> threads;
  std::atomic<bool> stop{false};
  std::atomic<int> misses{0};
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!stop) misses += store->keys().authenticate(kept.secret, kNow) == nullptr ? 1 : 0;
    });
  }
  for (int i = 0; i < 20; ++i) store->keys().revoke(store->keys().create({.name = "x"}).value().key.id).value();
  store->keys().flush_last_used().value();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(misses, 0);
}

TEST(AuthEntries, AreReadFromAList) {
  const Json list = Json::parse(R"([
    {"id": "ci", "key": "0123456789abcdefghij", "scopes": ["infer", "metrics"], "requests_per_minute": 60,
     "tokens_per_minute": 1000, "tokens_per_day": 9000, "max_concurrent": 2, "expires_at": 1800000000},
    {"id": "hashed", "name": "By hash", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}])");
  const auto snapshot = AuthSnapshot::from_entries(parse_auth_entries(list, "keys.yaml").value(), "secret").value();
  const auto ci = snapshot->find("0123456789abcdefghij", kNow);
  ASSERT_TRUE(ci);
  EXPECT_EQ(ci->name, "ci");
  EXPECT_EQ(to_string(ci->scopes), "infer,metrics");
  EXPECT_EQ(ci->quotas, (QuotaLimits{60, 1000, 9000, 2}));
  EXPECT_FALSE(snapshot->find("0123456789abcdefghij", 1'800'000'000));
  EXPECT_EQ(snapshot->find("abc", kNow)->name, "By hash");
}

TEST(AuthEntries, ErrorsNameThePlaceAndNoSecret) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({})", "expected a list"},
      {R"([3])", "key 1: expected an object"},
      {R"([{"key": "0123456789abcdefghij"}])", "\"id\""},
      {R"([{"id": "a"}])", "a secret, or its hash"},
      {R"([{"id": "a", "key": "hunter2"}])", "cannot be used"},
      {R"([{"id": "a", "sha256": "xyz"}])", "64 hex digits"},
      {R"([{"id": "a", "key": "0123456789abcdefghij", "scopes": ["root"]}])", "\"root\" is not a scope"},
      {R"([{"id": "a", "key": "0123456789abcdefghij", "scopes": []}])", "needs a scope"},
      {R"([{"id": "a", "key": "0123456789abcdefghij", "rpm": 3}])", "unknown field \"rpm\""},
      {R"([{"id": "a", "key": "0123456789abcdefghij", "max_concurrent": -1}])", "at least 0"},
      {R"([{"id": "a", "key": "0123456789abcdefghij", "max_concurrent": 1.5}])", "at least 0"},
  };
  for (const auto& [text, expected] : cases) {
    const auto entries = parse_auth_entries(Json::parse(text), "keys.yaml");
    ASSERT_FALSE(entries) << text;
    EXPECT_NE(entries.error().message.find(expected), std::string::npos) << entries.error().message;
    EXPECT_NE(entries.error().message.find("keys.yaml"), std::string::npos);
    EXPECT_EQ(to_string(entries.error()).find("hunter2"), std::string::npos);
    EXPECT_EQ(to_string(entries.error()).find("0123456789"), std::string::npos);
  }
  const AuthEntry a = AuthEntry::from_secret({.id = "a"}, "0123456789abcdefghij").value();
  AuthEntry b = a;
  EXPECT_NE(AuthSnapshot::from_entries({a, b}, "").error().message.find("id a"), std::string::npos);
  b.key.id = "b";
  EXPECT_NE(AuthSnapshot::from_entries({a, b}, "").error().message.find("secret of another"), std::string::npos);
}

}  // namespace
}  // namespace tailor

// The page's files as a browser is given them.

#include "serve/page.h"

#include <gtest/gtest.h>

#include "serve/api_routes.h"
#include "serve/test_api.h"

namespace tailor {
namespace {

using test::Answer;
using test::TestApi;

constexpr PageFile kFiles[] = {{"/", "text/html; charset=utf-8", "aa", "<!doctype html>", "packed"},
                               {"/assets/icon-x.svg", "image/svg+xml", "bb", "<svg/>", ""}};

HttpResponse ask(const std::string& path, HttpHeaders headers = {}) {
  HttpHead head;
  head.method = "GET";
  head.path = path;
  head.headers = std::move(headers);
  return page_response(head, kFiles);
}

std::string field(const HttpHeaders& headers, std::string_view name) {
  const std::string* value = headers.find(name);
  return value == nullptr ? "(absent)" : *value;
}

TEST(Page, TypeTagAndHowLongItIsKept) {
  const HttpResponse page = ask("/"), icon = ask("/assets/icon-x.svg");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.body, "<!doctype html>");
  EXPECT_EQ(field(page.headers, "Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(field(page.headers, "ETag"), "\"aa\"");
  EXPECT_EQ(field(page.headers, "Cache-Control"), "no-cache");
  EXPECT_EQ(field(page.headers, "Vary"), "Accept-Encoding");
  EXPECT_EQ(field(icon.headers, "Content-Type"), "image/svg+xml");
  EXPECT_EQ(field(icon.headers, "Cache-Control"), "public, max-age=31536000, immutable");
  EXPECT_EQ(field(icon.headers, "Vary"), "(absent)");
}

TEST(Page, CompressedForThoseWhoTakeIt) {
  for (const char* taken : {"gzip", "deflate, gzip;q=0.5, br", "GZIP", "*", "br;q=1, *;q=0.001"}) {
    const HttpResponse page = ask("/", {{"Accept-Encoding", taken}});
    EXPECT_EQ(page.body, "packed") << taken;
    EXPECT_EQ(field(page.headers, "Content-Encoding"), "gzip") << taken;
    EXPECT_EQ(field(page.headers, "ETag"), "\"aa-gzip\"") << taken;
  }
  for (const char* refused : {"", "br", "gzip;q=0", "gzip; q=0.000", "xgzip", "identity, deflate"}) {
    const HttpResponse page = ask("/", {{"Accept-Encoding", refused}});
    EXPECT_EQ(page.body, "<!doctype html>") << refused;
    EXPECT_EQ(field(page.headers, "Content-Encoding"), "(absent)") << refused;
  }
  EXPECT_EQ(field(ask("/assets/icon-x.svg", {{"Accept-Encoding", "gzip"}}).headers, "Content-Encoding"), "(absent)");
}

TEST(Page, NotSentAgainToThoseWhoHaveIt) {
  for (const char* known : {"\"aa\"", "W/\"aa\"", "\"zz\", \"aa\"", "*"}) {
    const HttpResponse page = ask("/", {{"If-None-Match", known}});
    EXPECT_EQ(page.status, 304) << known;
    EXPECT_EQ(page.body, "") << known;
    EXPECT_EQ(field(page.headers, "ETag"), "\"aa\"") << known;
  }
  EXPECT_EQ(ask("/", {{"If-None-Match", "\"aa-gzip\""}}).status, 200);
  EXPECT_EQ(ask("/", {{"If-None-Match", "\"aa-gzip\""}, {"Accept-Encoding", "gzip"}}).status, 304);
  EXPECT_EQ(ask("/", {{"If-None-Match", "aa"}}).status, 200);
}

TEST(Page, NothingFromElsewhereIsLetIn) {
  for (const HttpResponse& answer : {ask("/"), ask("/assets/icon-x.svg"), ask("/", {{"If-None-Match", "*"}})}) {
    const std::string policy = field(answer.headers, "Content-Security-Policy");
    for (const char* rule : {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
                             "img-src 'self' data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"})
      EXPECT_NE(policy.find(rule), std::string::npos) << rule;
    EXPECT_EQ(policy.find("unsafe"), std::string::npos);
    EXPECT_EQ(field(answer.headers, "Referrer-Policy"), "no-referrer");
    EXPECT_EQ(field(answer.headers, "X-Content-Type-Options"), "nosniff");
    EXPECT_NE(field(answer.headers, "Permissions-Policy").find("camera=()"), std::string::npos);
  }
}

TEST(Page, WhatIsNotThereIs404) {
  EXPECT_EQ(ask("/assets/other.js").status, 404);
  EXPECT_EQ(ask("/assets/").status, 404);
}

TEST(Page, TheServerGivesWhatIsBuiltIn) {
  TestApi api;
  const auto get = [&](std::string_view path, const std::string& fields = "") {
    return api.client().ask("GET " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n");
  };
  const Answer page = get("/");
  ASSERT_EQ(page.status, 200);
  EXPECT_NE(page.body.find("<title>Tailor</title>"), std::string::npos);
  std::size_t named = 0;
  for (const PageFile& file : page_files()) {
    const Answer answer = get(file.path);
    EXPECT_EQ(answer.status, 200) << file.path;
    EXPECT_EQ(answer.body, file.body) << file.path;
    EXPECT_EQ(field(answer.headers, "Content-Type"), file.type) << file.path;
    EXPECT_EQ(get(file.path, "Accept-Encoding: gzip\r\n").body, file.gzip.empty() ? file.body : file.gzip) << file.path;
    EXPECT_EQ(get(file.path, "If-None-Match: " + field(answer.headers, "ETag") + "\r\n").status, 304) << file.path;
    if (file.path != "/" && page.body.find(file.path) != std::string::npos) ++named;
  }
  std::size_t wanted = 0;  // every file that the page names is there
  for (std::size_t at = page.body.find("\"/assets/"); at != std::string::npos;
       at = page.body.find("\"/assets/", at + 1))
    ++wanted;
  EXPECT_EQ(named, wanted);
  EXPECT_EQ(get("/assets/none.js").status, 404);
  EXPECT_EQ(api.post("/", Json::object()).status, 405);
}

class ClosedDoor final : public Authenticator {
 public:
  ApiResult<Principal> check(const HttpHead&, ApiScope) override {
    return ApiError{401, "authentication_error", "invalid_api_key", "a key is needed", ""};
  }
};

TEST(Page, NeedsNoKey) {
  ModelRegistry models;
  ClosedDoor door;
  NullLogger log;
  ApiServer api(models, door, log, {});
  HttpHead head;
  head.method = "GET";
  for (const PageFile& file : page_files()) {
    head.path = file.path;
    EXPECT_FALSE(api.admit(head).refusal.has_value()) << file.path;
  }
  head.path = "/v1/models";
  EXPECT_EQ(api.admit(head).refusal->status, 401);
}

}  // namespace
}  // namespace tailor

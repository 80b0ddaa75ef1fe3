#include "serve/token_places.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tailor {
namespace {

std::vector<std::size_t> places_of(const std::vector<std::string>& tokens) {
  TokenPlaces places;
  std::vector<std::size_t> out;
  for (const std::string& token : tokens) out.push_back(places.next(token));
  return out;
}

TEST(TokenPlaces, CountCharacters) {
  EXPECT_EQ(places_of({"Zo", "ë", " met", " 😀", "!"}), (std::vector<std::size_t>{0, 2, 3, 7, 9}));
}

TEST(TokenPlaces, TokensWithinACharacterHaveItsPlace) {
  EXPECT_EQ(places_of({"a", "\xF0\x9F", "\x98", "\x80", "b"}), (std::vector<std::size_t>{0, 1, 1, 1, 2}));
}

TEST(TokenPlaces, WhatTheTokenizerAddsToATextHasNoLength) {
  const std::string text = "The é";
  TokenPlaces places;
  EXPECT_EQ(places.next_of(text, "<s>"), 0u);
  EXPECT_EQ(places.next_of(text, " The"), 0u);
  EXPECT_EQ(places.next_of(text, " é"), 3u);
  places.end_of(text);
  EXPECT_EQ(places.next(" is"), 5u);
}

}  // namespace
}  // namespace tailor

"""Configuration: config.yaml comes in, frozen types that were checked in full go out. Data only, no result follows.

Every wing may import it; it imports errors and thresholds.
"""

"""The method, free of Dagster: from video files to one distilled file, and what that file is worth.

Every module here can be used and tested alone. What knows Dagster stands one floor up, in `lvdd_assets`.
"""
